"""The tasks of the paper, by name: where the data is, and the one template that training and evaluation share."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import FILE_BUILDERS, load_rows
from .sources import Source, require_columns
from .text import normalise, stable_fraction
from .values import require_texts

logger = logging.getLogger(__name__)

#: Share of the rows that become the test split where a task, or a single file, has none.
TEST_SHARE = 0.05


@dataclass(frozen=True)
class Task:
    """A task: its data set, and how a row of it becomes a request and an answer.

    Attributes:
        name: name by which the task is asked for.
        source: where the rows are published.
        splits: `train` or `test` -> name of that split in the source.
        columns: the columns that the template reads.
        texts: those of them that must be texts with at least a word.
        ask: function that makes the request of a row.
        answer: function that makes the answer of a row.
        clothes: a request in the task's own format: a text with `{request}`.
        paper: the paper to cite.
    """

    name: str
    source: Source
    splits: Mapping[str, str]
    columns: tuple[str, ...]
    texts: tuple[str, ...]
    ask: Callable[[Mapping[str, Any]], str]
    answer: Callable[[Mapping[str, Any]], str]
    clothes: str
    paper: str

    def rows(self, rows: Any, name: str) -> Any:
        """Make rows of the training form, after a look at every value; rows without an answer are left out, and said.

        Args:
            rows: a `Dataset` of the task's original columns.
            name: what it is called in error messages.

        Raises:
            ValueError: when a column is missing, or for a row that cannot be used; the message names the row.
        """
        require_columns(rows, self.columns, name)
        require_texts(rows, self.texts, name)

        def made(row: Mapping[str, Any], index: int) -> dict[str, Any]:
            try:
                return self.row(row)
            except ValueError as error:
                raise ValueError(f"Row {index} of '{name}' cannot be used. {error}") from error

        chat = rows.map(made, with_indices=True, remove_columns=rows.column_names)
        answered = [i for i, completion in enumerate(chat["completion"]) if completion[0]["content"]]
        if len(answered) == len(chat):
            return chat
        logger.warning(
            "%d of %d rows of '%s' have no answer, and are left out.", len(chat) - len(answered), len(chat), name
        )
        return chat.select(answered)

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Make a row in TRL's chat prompt/completion form; the model's own template wraps it, as in evaluation."""
        return {
            "prompt": [{"role": "user", "content": self.ask(row)}],
            "completion": [{"role": "assistant", "content": self.answer(row)}],
        }


#: Where a request stands in the format of a task.
REQUEST = "{request}"
_GSM8K = f"{REQUEST}\n\nThink step by step, and end with #### and the final number."
_SST2 = f"Classify the sentiment of this review as positive or negative: {REQUEST}"
_CODE = f"Write a Python function that prints a complete answer to this request: {REQUEST}"


def _ask_gsm8k(row: Mapping[str, Any]) -> str:
    return _GSM8K.replace(REQUEST, str(row["question"]).strip())


def _ask_sst2(row: Mapping[str, Any]) -> str:
    return _SST2.replace(REQUEST, str(row["sentence"]).strip())


def _answer_sst2(row: Mapping[str, Any]) -> str:
    answer = {"0": "negative", "1": "positive"}.get(str(row["label"]))
    if answer is None:
        raise ValueError(
            f"An SST2 row has `label={row['label']!r}` (sentence: {str(row['sentence'])[:60]!r}). It must be 0 or 1; "
            "the test split that the Hub publishes hides its labels (-1)."
        )
    return answer


def _ask_code(row: Mapping[str, Any]) -> str:
    instruction, extra = str(row["instruction"]).strip(), str(row["input"] or "").strip()
    return f"{instruction}\n\n{extra}" if extra else instruction


def _answer_code(row: Mapping[str, Any]) -> str:
    if not isinstance(row["output"], str):  # a few published outputs may be blank
        raise ValueError(f"Its `output` is {row['output']!r}, not a text. Fill it in, or remove the row.")
    return row["output"].strip()


TASKS = {
    task.name: task
    for task in (
        Task(
            "gsm8k",
            Source("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", config="main"),
            {"train": "train", "test": "test"},
            ("question", "answer"),
            ("question", "answer"),
            _ask_gsm8k,
            lambda row: str(row["answer"]).strip(),
            _GSM8K,
            "https://arxiv.org/abs/2110.14168",
        ),
        Task(
            "sst2",
            Source("stanfordnlp/sst2", "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb"),
            {"train": "train", "test": "validation"},
            ("sentence", "label"),
            ("sentence",),
            _ask_sst2,
            _answer_sst2,
            _SST2,
            "https://aclanthology.org/D13-1170",
        ),
        Task(
            "code",
            Source("sahil2801/CodeAlpaca-20k", "152bb5e9a29651266b018106053980070a0521a1"),
            {"train": "train"},
            ("instruction", "input", "output"),
            ("instruction",),
            _ask_code,
            _answer_code,
            _CODE,
            "https://github.com/sahil280114/codealpaca",
        ),
    )
}


def find_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in TASKS:
        raise ValueError(
            f"`task={name!r}` is unknown. Choose from: {', '.join(TASKS)}; or give any data set as `dataset_name`."
        )
    return TASKS[name]


def format_of(text: str, what: str) -> str:
    """Return a request's format: that of the task that `text` names, or else `text` itself.

    Args:
        text: name of a task, or a text with `{request}`.
        what: what the text is called in the error message.

    Raises:
        ValueError: when it is neither.
    """
    template = TASKS[text].clothes if text in TASKS else text
    if REQUEST not in template:
        raise ValueError(
            f"{what} names no task and has no `{REQUEST}`. Write the name of a task ({', '.join(TASKS)}), or the "
            f"format of your rows, such as 'Summarise this: {REQUEST}'."
        )
    return template


def load_task(name: str, path: str | None = None) -> Any:
    """Load the `train` and `test` splits of a task, as chat prompt/completion rows.

    Where the source has no test split (`code`, or a single file), about `TEST_SHARE` of the rows become one: those
    whose request has a small digest. They are the same for every seed, and no row is in both splits.

    Args:
        name: one of `TASKS`.
        path: a file with the original columns, or a folder with a file for each split, instead of the Hub.

    Returns:
        A `DatasetDict`.

    Raises:
        DataUnavailable: when the Hub cannot be reached.
        ValueError: for an unknown task, or a missing column.
    """
    from datasets import DatasetDict

    task = find_task(name)
    loaded = (
        _copy(task, path)
        if path
        else {ours: task.source.load(theirs, "task_path") for ours, theirs in task.splits.items()}
    )
    for split, rows in loaded.items():
        loaded[split] = task.rows(rows, f"{path or task.source.location} (split {split})")
    if "test" not in loaded:
        loaded = _carve(loaded["train"])
    return DatasetDict(loaded)


def _copy(task: Task, path: str) -> dict[str, Any]:
    """Load the splits of a local copy."""
    if Path(path).suffix in FILE_BUILDERS:
        return {"train": load_rows(path, split="train")}
    if not Path(path).is_dir():
        raise FileNotFoundError(
            f"`task_path={path!r}` is neither a folder nor a {', '.join(FILE_BUILDERS)} file (looked in "
            f"{Path.cwd()}). Check the path."
        )
    found = load_rows(path)
    if "train" not in found:
        raise ValueError(
            f"The folder `task_path={path!r}` has the splits {sorted(found)}, and no `train`. Name its files "
            "`train.jsonl` and `test.jsonl` (or .json, .csv, .parquet)."
        )
    test = next((s for s in (task.splits.get("test"), "test", "validation") if s in found), None)
    return {"train": found["train"], **({"test": found[test]} if test else {})}


def _carve(rows: Any) -> dict[str, Any]:
    """Split rows into `train` and `test` by a digest of their request."""
    is_test = [stable_fraction(normalise(prompt[-1]["content"])) < TEST_SHARE for prompt in rows["prompt"]]
    parts = {"train": [i for i, t in enumerate(is_test) if not t], "test": [i for i, t in enumerate(is_test) if t]}
    return {name: rows.select(indices) for name, indices in parts.items() if indices or name == "train"}
