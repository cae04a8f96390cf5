"""What is in the columns of rows: texts that say something, and chat messages; else an error that names the row."""

from collections.abc import Mapping, Sequence
from typing import Any

_REMEDY = "Fill it in, or remove the row."


def require_texts(rows: Any, columns: Sequence[str], name: str) -> None:
    """Check that every value of these columns is a text with at least a word.

    Args:
        rows: a `Dataset`.
        columns: names of the columns.
        name: what the data set is called in the error message.

    Raises:
        ValueError: for the first value that is none; the message names data set, row and column.
    """
    for column in columns:
        for index, value in enumerate(rows[column]):
            if fault := _text_fault(value):
                raise ValueError(f"Row {index} of '{name}': `{column}` {fault}. {_REMEDY}")


def check_training_rows(rows: Any, text: str, name: str) -> None:
    """Check the values of training rows of any form that can be trained on, but tokenised ones.

    Args:
        rows: a `Dataset` with `messages`, `prompt` and `completion`, or a column of texts.
        text: name of the column of texts.
        name: what the data set is called in the error message.

    Raises:
        ValueError: for the first row that cannot be trained on; the message names data set, row and column.
    """
    names = rows.column_names
    if "input_ids" in names or "conversations" in names:
        return
    pair = ("prompt", "completion")
    columns = ("messages",) if "messages" in names else pair if set(pair) <= set(names) else (text,)
    forms: dict[str, type] = {}
    for column in columns:
        for index, value in enumerate(rows[column]):
            kind = forms.setdefault(column, str if isinstance(value, str) else list)
            fault = value_fault(value)
            if not fault and not isinstance(value, kind):
                fault = "is of another form (text, or chat messages) than that of the rows before"
            if fault:
                raise ValueError(f"Row {index} of '{name}': `{column}` {fault}. {_REMEDY}")
    if len(set(forms.values())) > 1:
        raise ValueError(f"The rows of '{name}' mix text and chat messages. Give `prompt` and `completion` one form.")


def value_fault(value: Any) -> str:
    """Say what is wrong with a value that is to be a text, or chat messages; empty where nothing is."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return _text_fault(value)
    if not value:
        return "has no messages"
    return next(
        (f"has a message {number} that {fault}" for number, turn in enumerate(value) if (fault := _turn_fault(turn))),
        "",
    )


def _text_fault(value: Any) -> str:
    if value is None:
        return "is empty (null)"
    if not isinstance(value, str):
        return f"is {str(value)[:40]!r} ({type(value).__name__}), not a text"
    return "" if value.strip() else "is empty"


def _turn_fault(turn: Any) -> str:
    if not isinstance(turn, Mapping):
        return f"is {type(turn).__name__}, not `role` and `content`"
    if not isinstance(turn.get("role"), str) or not turn["role"]:
        return "has no `role`"
    content = turn.get("content")
    if isinstance(content, list):
        return (
            "" if content and all(isinstance(part, Mapping) for part in content) else "has a `content` without parts"
        )
    if content is None and turn.get("tool_calls"):
        return ""
    if content == "" and turn["role"] not in ("user", "assistant"):
        return ""
    fault = _text_fault(content)
    return f"has a `content` that {fault}" if fault else ""
