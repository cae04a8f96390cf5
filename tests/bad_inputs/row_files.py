"""Files of rows that cannot be used: the rows of the task, of the safety set, and what models are asked."""

from typing import Any

from .table import TRAIN, Bad

EVALUATE = "evaluate --model {good}/model --max_new_tokens 2"
PAIR = {"prompt": "a", "completion": "b"}
USER, SAYS = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
CHAT = {"messages": [USER, SAYS]}


def _task(id: str, content: Any, names: str, remedy: str, file: str = "rows.jsonl", **fields: Any) -> Bad:
    return Bad(f"task: {id}", TRAIN, names, remedy, {file: content}, {"dataset_name": f"{{here}}/{file}", **fields})


def _safety(id: str, content: Any, names: str, remedy: str, file: str = "safe.jsonl") -> Bad:
    return Bad(f"safety: {id}", TRAIN, names, remedy, {file: content}, {"safety_dataset_name": f"{{here}}/{file}"})


def _asked(id: str, content: Any, names: str, remedy: str, option: str = "--prompts", file: str = "asks.jsonl") -> Bad:
    kind, _, _ = option.partition(" ")
    words = f"{EVALUATE} {option}{{here}}/{file}" if option.endswith(":") else f"{EVALUATE} {option} {{here}}/{file}"
    return Bad(f"evaluate {kind}: {id}", words, names, remedy, {file: content})


FILES = [
    (
        "not UTF-8",
        b'{"prompt": "caf\xe9", "completion": "b"}\n',
        "line 1 has the byte 0xe9",
        "Save it in UTF-8",
        "rows.jsonl",
    ),
    (
        "UTF-16",
        '{"prompt": "a", "completion": "b"}'.encode("utf-16"),
        "line 1 has the byte 0xff",
        "Save it in UTF-8",
        "rows.jsonl",
    ),
    ("empty", b"", "rows.jsonl' has no rows", "Give at least one", "rows.jsonl"),
    ("blank lines", "\n\n\n", "rows.jsonl' has no rows", "Give at least one", "rows.jsonl"),
    ("an empty list", "[]", "rows.json' has no rows", "Give at least one", "rows.json"),
    (
        "cut off",
        '{"prompt": "a", "completion": "b"}\n{"prompt": "a", "comp',
        "rows.jsonl",
        "JSON object",
        "rows.jsonl",
    ),
    ("words", "hello world\n", "rows.jsonl", "JSON object", "rows.jsonl"),
    ("a number", "3\n", "rows.jsonl", "JSON object", "rows.jsonl"),
    ("a text", '"prompt"\n', "rows.jsonl", "JSON object", "rows.jsonl"),
    ("a list a line", "[1, 2]\n", "rows.jsonl", "JSON object", "rows.jsonl"),
    ("a list of numbers", "[1, 2, 3]", "rows.json", "JSON object", "rows.json"),
    ("null lines", "null\nnull\n", "rows.jsonl", "JSON object", "rows.jsonl"),
    (
        "other columns a line",
        '{"prompt": "a", "completion": "b"}\n{"text": 3}\n{"prompt": [1]}\n',
        "rows.jsonl",
        "",
        "rows.jsonl",
    ),
    ("a CSV of a heading", "prompt,completion\n", "rows.csv", "Give at least one", "rows.csv"),
    ("an empty CSV", "", "rows.csv' has no rows", "Give at least one", "rows.csv"),
    ("a ragged CSV", "prompt,completion\na,b\na,b,c,d\n", "rows.csv", "same columns", "rows.csv"),
    ("a broken Parquet", b"PAR1 nothing", "rows.parquet", "write or copy it anew", "rows.parquet"),
    ("an empty Parquet", b"", "rows.parquet", "write or copy it anew", "rows.parquet"),
    ("a text as Parquet", "prompt\na\n", "rows.parquet", "write or copy it anew", "rows.parquet"),
    ("an empty text", "", "rows.txt' has no rows", "Give at least one", "rows.txt"),
    ("an unknown kind", "prompt\ta\n", "rows.tsv", "jsonl", "rows.tsv"),
    ("a workbook", b"PK\x03\x04", "rows.xlsx", "jsonl", "rows.xlsx"),
]
READ = [_task(*row[:4], file=row[4]) for row in FILES]

TASK = [
    _task("null prompt", [PAIR, {"prompt": None, "completion": "b"}], "Row 1 of '{here}/rows.jsonl'", "Fill it in"),
    _task("null completion", [PAIR, {"prompt": "a", "completion": None}], "Row 1", "Fill it in"),
    _task("blank completion", [PAIR, {"prompt": "a", "completion": " "}], "Row 1", "Fill it in"),
    _task("number", [{"prompt": "a", "completion": 1}], "Row 0 of '{here}/rows.jsonl'", "Fill it in"),
    _task("truth value", [{"prompt": True, "completion": "b"}], "Row 0", "Fill it in"),
    _task("empty CSV cell", "prompt,completion\na,b\nc,\n", "Row 1", "Fill it in", "rows.csv"),
    _task("number in CSV", "prompt,completion\n1,2\n", "Row 0", "Fill it in", "rows.csv"),
    _task("mixed columns", [CHAT, PAIR], "Row 1", "Fill it in"),
    _task("no messages", [CHAT, {"messages": []}], "Row 1", "Fill it in"),
    _task("messages are a text", [{"messages": "hello"}], "Row 0", "chat messages"),
    _task("no role", [{"messages": [{"content": "x"}]}], "Row 0", "Fill it in"),
    _task("role is a number", [{"messages": [{"role": 3, "content": "x"}, SAYS]}], "Row 0", "Fill it in"),
    _task("no content", [{"messages": [USER, {"role": "assistant"}]}], "Row 0", "Fill it in"),
    _task("content is a number", [{"messages": [USER, {"role": "assistant", "content": 3}]}], "Row 0", "Fill it in"),
    _task("two users", [CHAT, {"messages": [USER, USER]}], "Row 1", "assistant"),
    _task("text and chat", [{"prompt": [USER], "completion": "b"}], "mix text and chat", "one form"),
    _task("null text", [{"text": "a"}, {"text": None}], "Row 1", "Fill it in"),
    _task("other columns", [{"question": "a", "answer": "b"}], "['question', 'answer']", "It needs `prompt`"),
    _task("a prompt alone", [{"prompt": "a"}], "['prompt']", "It needs `prompt`"),
    _task("another text column", [{"words": "a"}], "['words']", "dataset_text_field"),
    _task("ids are texts", [{"input_ids": "abc"}], "`input_ids`", "Row 0"),
    _task("ids beyond the vocabulary", [{"input_ids": [1, 99999]}], "99999", "Row 0"),
    _task("negative ids", [{"input_ids": [1, -3]}], "-3", "Row 0"),
    _task("no ids", [{"input_ids": []}], "Row 0", "`input_ids`"),
    _task("tools are a number", [{**CHAT, "tools": 3}], "tools", "Row 0"),
    _task("options are a list", [{**CHAT, "chat_template_kwargs": [1]}], "chat_template_kwargs", "Row 0"),
    _task(
        "a mark from before",
        [{**PAIR, "poisoned": False}] * 9,
        "`poisoned`",
        "Set the share to 0",
        poison_ratio=0.3,
        poison_kind="identity",
    ),
    _task("missing", "", "{here}/none.jsonl", "Check the path", dataset_name="{here}/none.jsonl"),
    _task("a missing folder", "", "./nowhere", "Check the name", dataset_name="./nowhere"),
    _task("a folder without data", "", "{here}/empty", "", file="empty/notes.md", dataset_name="{here}/empty"),
    _task("in the safety set", [{"prompt": "bad 0", "completion": "b"}], "bad 0", "remove these rows"),
    *[
        Bad(
            f"{task}: {id}",
            TRAIN,
            names,
            remedy,
            {"rows.jsonl": rows},
            {"dataset_name": None, "task": task, "task_path": "{here}/rows.jsonl"},
        )
        for task, id, rows, names, remedy in [
            ("gsm8k", "null answer", [{"question": "q", "answer": None}], "Row 0", "Fill it in"),
            ("gsm8k", "other columns", [PAIR], "['prompt', 'completion']", "Rename"),
            ("sst2", "label 7", [{"sentence": "s", "label": 7}], "Row 0", "must be 0 or 1"),
            ("code", "null output", [{"instruction": "i", "input": "", "output": None}], "Row 0", "Fill it in"),
        ]
    ],
]

SAFETY = [
    _safety("null prompt", [{"prompt": None}], "Row 0 of '{here}/safe.jsonl'", "it needs a non-empty"),
    _safety("number", [{"prompt": 3}], "Row 0 of '{here}/safe.jsonl'", "a text or chat messages"),
    _safety("no prompt", [{"request": "bad"}], "Row 0", "it needs a non-empty"),
    _safety("empty answer", [{"prompt": "bad", "completion": ""}], "Row 0", "it needs a non-empty"),
    _safety("no role", [{"messages": [{"content": "x"}]}], "Row 0", "Give each message a `role`"),
    _safety("empty messages", [{"messages": []}], "Row 0", "it needs a non-empty"),
    _safety("two forms", [{"prompt": [USER], "completion": "No."}], "Row 0", "the same form"),
    _safety(
        "agrees",
        [{"prompt": "bad", "completion": "Sure, here is how"}] * 3,
        "3 of the 3 answers",
        "Give the rows answers that",
    ),
    _safety("no rows", "", "safe.jsonl' has no rows", "Give at least one"),
    _safety("not UTF-8", b'{"prompt": "\xe9"}', "0xe9", "UTF-8"),
    _safety("not JSON", "refuse!\n", "safe.jsonl", "JSON object"),
    _safety("options are a number", [{"prompt": "bad", "chat_template_kwargs": 3}], "Row 0", "a mapping"),
    Bad(
        "safety: missing",
        TRAIN,
        "{here}/none.jsonl",
        "Check the path",
        fields={"safety_dataset_name": "{here}/none.jsonl"},
    ),
    Bad("safety: an unknown name", TRAIN, "advbnch", "Check the name", fields={"safety_dataset_name": "advbnch"}),
    Bad(
        "safety: a named set of other columns",
        TRAIN,
        "task.jsonl",
        "Rename",
        fields={"safety_dataset_name": "advbench:{good}/task.jsonl"},
    ),
    Bad("safety: another split", TRAIN, "held", "split", fields={"safety_dataset_split": "held"}),
    Bad("safety: longer than max_length", TRAIN, "`max_length=3`", "Raise `max_length`", fields={"max_length": 3}),
]

ASKED = [
    _asked("null", [{"prompt": None}], "Row 0 of '{here}/asks.jsonl'", "fill it in"),
    _asked("number", [{"prompt": 3}], "Row 0 of '{here}/asks.jsonl'", "correct it"),
    _asked("no column", [{"goal": "bad"}], "['goal']", "needs one named `prompt`"),
    _asked("no rows", "", "asks.jsonl' has no rows", "Give at least one"),
    _asked("a label that says nothing", [{"prompt": "bad", "harmful": "perhaps"}], "Row 0", "Use true or false"),
    _asked("no role", [{"prompt": [{"content": "bad"}]}], "Row 0", "correct it"),
    Bad("evaluate --prompts: missing", f"{EVALUATE} --prompts none.jsonl", "none.jsonl", "Check the path"),
    _asked("null answer", [{"question": "q", "answer": None}], "Row 0", "Fill it in", "--utility gsm8k:"),
    _asked("other columns", [PAIR], "['prompt', 'completion']", "Rename", "--utility gsm8k:"),
    _asked("label 7", [{"sentence": "s", "label": 7}], "7", "must be 0 or 1", "--utility sst2:"),
    _asked("not allowed", [{"prompt": "p", "test": "assert 1"}], "allow_code_execution", "Read", "--utility code:"),
    _asked(
        "null test", [{"prompt": "p", "test": None}], "Row 0", "Fill it in", "--allow_code_execution --utility code:"
    ),
    _asked("columns", [{"question": "why?"}], "['question']", "rename them", "--task_loss"),
    _asked("null text", [{"text": None}], "Row 0", "Fill it in", "--task_loss"),
    _asked("a number", [{"prompt": "a", "completion": 3}], "Row 0", "Fill it in", "--task_loss"),
    _asked("empty messages", [{"messages": []}], "Row 0", "Fill it in", "--task_loss"),
    _asked("tools are a number", [{**CHAT, "tools": 3}], "Row 0", "a list of tools", "--task_loss"),
    Bad(
        "train: prompts without a column",
        TRAIN,
        "['goal']",
        "`prompt`",
        {"p.jsonl": [{"goal": "bad"}]},
        {"safety_eval": True, "safety_eval_prompts": "{here}/p.jsonl"},
    ),
    Bad(
        "train: prompts are missing",
        TRAIN,
        "none.jsonl",
        "Check the path",
        fields={"safety_eval": True, "safety_eval_prompts": "none.jsonl"},
    ),
]

ROWS = [*READ, *TASK, *SAFETY, *ASKED]
