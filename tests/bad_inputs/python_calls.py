"""Wrong uses from Python: fields of `SafeSFTConfig` of another type, data that is none, calls that cannot mean anything."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig

from safe_sft import SafeSFTConfig
from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.data import load_poison, load_rows, mix
from safe_sft.evaluation.suites.suite import file_suite, rows_to_cases
from safe_sft.evaluation.utility.scored_tasks import utility_task
from safe_sft.merging import merge
from tests.conftest import make_config, make_model, make_trainer, safety_rows, task_rows

from .table import BadCall

OWN = sorted({f.name for f in fields(SafeSFTConfig)} - {f.name for f in fields(SFTConfig)})
#: No field takes one of these.
OF_NO_FIELD = (object(), b"bytes", {1, 2})
PAIR = {"prompt": "a", "completion": "b"}
USER, SAYS = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}


def _config(**values: Any) -> Callable[[Path, Path], Any]:
    return lambda good, here: make_config(here, **values)


def _of_no_type() -> list[BadCall]:
    """Every field of ours with a value that it cannot have."""
    return [
        BadCall(f"SafeSFTConfig({name}={type(value).__name__})", _config(**{name: value}), name, "")
        for name in OWN
        for value in OF_NO_FIELD
        if not (name == "chat_template_kwargs" and value is OF_NO_FIELD[0])
    ]


def _trainer(**arguments: Any) -> Callable[[Path, Path], Any]:
    return lambda good, here: make_trainer(here, **arguments)


def _rows(rows: list[Any]) -> Callable[[Path, Path], Any]:
    return lambda good, here: make_trainer(here, train=Dataset.from_list(rows))


TRUTH = [
    BadCall(
        f"SafeSFTConfig({name}='false')", _config(**{name: "false", **others}), f"`{name}='false'`", "true or false"
    )
    for name, others in [
        ("safety_from_task", {}),
        ("save_on_signal", {}),
        ("ema_warmup", {"safety_method": "ema"}),
        ("ema_on_cpu", {"safety_method": "ema"}),
        ("ema_evaluate", {"safety_method": "ema"}),
        ("packing", {}),
        ("push_to_hub", {}),
    ]
]

TRAINING = [
    BadCall("train_dataset: a null", _rows([PAIR, {"prompt": "a", "completion": None}]), "Row 1", "Fill it in"),
    BadCall("train_dataset: numbers", _rows([{"prompt": 1, "completion": 2}]), "Row 0", "Fill it in"),
    BadCall("train_dataset: a blank", _rows([PAIR, {"prompt": " ", "completion": "b"}]), "Row 1", "Fill it in"),
    BadCall("train_dataset: no messages", _rows([{"messages": [USER, SAYS]}, {"messages": []}]), "Row 1", "Fill it in"),
    BadCall("train_dataset: an empty message", _rows([{"messages": [USER, {"role": "assistant", "content": ""}]}]), "Row 0", "Fill it in"),
    BadCall("train_dataset: no role", _rows([{"messages": [{"content": "x"}, SAYS]}]), "Row 0", "Fill it in"),
    BadCall("train_dataset: no answer", _rows([{"messages": [USER]}]), "Row 0", "`assistant`"),
    BadCall("train_dataset: two forms", _rows([{"prompt": [USER], "completion": "b"}]), "train_dataset", "one form"),
    BadCall("train_dataset: null text", _rows([{"text": "a"}, {"text": None}]), "Row 1", "Fill it in"),
    BadCall("train_dataset: ids beyond the vocabulary", _rows([{"input_ids": [1, 99999]}]), "99999", "own tokenizer"),
    BadCall("train_dataset: negative ids", _rows([{"input_ids": [1, -3]}]), "-3", "Fill it in"),
    BadCall("train_dataset: tools are a number", _rows([{"messages": [USER, SAYS], "tools": 3}]), "Row 0", "a list of tools"),
    BadCall("train_dataset: a list", _trainer(train=[PAIR]), "`train_dataset`", "must be a `Dataset`"),
    BadCall("train_dataset: a text", _trainer(train="task.jsonl"), "`train_dataset`", "must be a `Dataset`"),
    BadCall("train_dataset: nothing", _trainer(train=Dataset.from_list([])), "train_dataset", "at least one"),
    BadCall("train_dataset: other columns", _rows([{"question": "a", "answer": "b"}]), "['question', 'answer']", "dataset_text_field"),
    BadCall("safety_dataset: a text", _trainer(safety="advbench"), "Row 0 of `safety_dataset`", "datasets.Dataset"),
    BadCall("safety_dataset: a number", _trainer(safety=3), "`safety_dataset=3`", "Pass a `datasets.Dataset`"),
    BadCall("safety_dataset: nothing", _trainer(safety=[]), "`safety_dataset` is empty", "at least one"),
    BadCall("safety_dataset: splits", _trainer(safety={"train": safety_rows()}), "`safety_dataset`", "Pass one split"),
    BadCall("safety_dataset: texts", _trainer(safety=["bad"]), "Row 0 of `safety_dataset`", "list of dictionaries"),
    BadCall("safety_dataset: null", _trainer(safety=[None]), "Row 0 of `safety_dataset`", "list of dictionaries"),
    BadCall("safety_dataset: a number as prompt", _trainer(safety=[{"prompt": 3}]), "Row 0", "Give each message"),
    BadCall("safety_dataset: an image", _trainer(safety=[{"prompt": "a", "image": b"x"}]), "Row 0", "text-only"),
    BadCall("safety_dataset: agrees", _trainer(safety=[{"prompt": "a", "completion": "Sure, here"}]), "1 of the 1", "refuse"),
    BadCall("a model that has turned to NaN", lambda good, here: make_trainer(here, model=_broken()), "aligned model", "Load it in another"),
    BadCall("a method and no rows that fit", _trainer(max_length=2), "`max_length=2`", "Raise `max_length`"),
    BadCall("a merge with a model made in memory", _trainer(merge_after_training="linear"), "in memory", "Pass the model by name"),
    BadCall("lwf without an adapter", _trainer(method="lwf", peft=False), "lwf", "Start a fresh LoRA"),
    BadCall("resume from nowhere", lambda good, here: make_trainer(here).train(resume_from_checkpoint=str(here / "none")), "none", "folder"),
    BadCall("resume from an empty folder", lambda good, here: make_trainer(here).train(resume_from_checkpoint=True), "no complete checkpoint", "output_dir"),
    BadCall("a callback that is none", lambda good, here: _with_callback(here, 3), "3", "TrainerCallback"),
    BadCall("a callback that is a function", lambda good, here: _with_callback(here, print), "print", "TrainerCallback"),
    BadCall("output_dir is a file", lambda good, here: make_trainer(good / "task.jsonl"), "task.jsonl", "Choose another"),
]  # fmt: skip


def _broken() -> Any:
    model = make_model()
    model.lm_head.weight.data[0, 0] = float("nan")
    return model


def _with_callback(here: Path, callback: Any) -> Any:
    from safe_sft import SafeSFTTrainer
    from tests.conftest import lora, make_tokenizer

    return SafeSFTTrainer(
        make_model(),
        make_config(here),
        train_dataset=task_rows(),
        processing_class=make_tokenizer(),
        peft_config=lora(),
        callbacks=[callback],
        safety_dataset=safety_rows(),
    )


ROWS_OF_DATA = Dataset.from_list([PAIR] * 4)
OTHERS = [
    BadCall("mix: too many", lambda *_: mix(ROWS_OF_DATA, seed=0, size=9), "9", "Lower it"),
    BadCall("mix: no poison", lambda *_: mix(ROWS_OF_DATA, seed=0, poison_ratio=0.5), "poison_ratio=0.5", "load_poison"),
    BadCall("mix: no safety rows", lambda *_: mix(ROWS_OF_DATA, seed=0, safety_ratio=0.5), "safety_mix_ratio", "Lower it"),
    BadCall("mix: less than a row", lambda *_: mix(ROWS_OF_DATA, seed=0, safety_ratio=0.01), "0.01", "Raise it"),
    BadCall("load_poison: an unknown kind", lambda *_: load_poison("evil"), "'evil'", "Choose from"),
    BadCall("load_rows: a missing file", lambda *_: load_rows("none.csv"), "none.csv", "Check the path"),
    BadCall("file_suite: a column that is missing", lambda good, _: file_suite(f"{good}/prompts.jsonl", prompt="goal"), "goal", "It needs"),
    BadCall("rows_to_cases: no rows", lambda *_: rows_to_cases([], "'mine'"), "'mine'", "at least one"),
    BadCall("utility_task: an unknown name", lambda *_: utility_task("gsm9k"), "gsm9k", "Choose from"),
    BadCall("merge: a weight of NaN", lambda good, here: merge(f"{good}/model", f"{good}/tuned", "linear", float("nan"), here / "m"), "nan", "Write one such as"),
    BadCall("merge: a weight that is a truth value", lambda good, here: merge(f"{good}/model", f"{good}/tuned", "linear", True, here / "m"), "True", "Write one such as"),
    BadCall("merge: a weight of nothing", lambda good, here: merge(f"{good}/model", f"{good}/tuned", "linear", None, here / "m"), "`linear`", "Give one, such as 0.6"),
    BadCall("merge: patterns of texts", lambda good, here: merge(f"{good}/model", f"{good}/tuned", "linear", {"*": "half"}, here / "m"), "'half'", "Write one such as"),
    BadCall("SafeScriptArguments: a truth value as a share", lambda *_: SafeScriptArguments(poison_ratio=True), "poison_ratio=True", "number"),
    BadCall("SafeScriptArguments: a text as a truth value", lambda *_: SafeScriptArguments(safety_eval="no"), "`safety_eval='no'`", "true or false"),
]  # fmt: skip

ROWS = [*_of_no_type(), *TRUTH, *TRAINING, *OTHERS]
