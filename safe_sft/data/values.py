"""What is in the columns of rows: texts that say something, and chat messages; else an error that names the row."""

from collections.abc import Mapping, Sequence
from typing import Any

from .safety_rows import template_options

#: Roles whose messages are no answer.
_ASKING = {"system", "developer", "user"}
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


def require_training_columns(names: Sequence[str], text: str) -> None:
    """Check that rows have a form that TRL trains on.

    Args:
        names: names of their columns.
        text: name of the column of texts.

    Raises:
        ValueError: when they have none; the message names the columns.
    """
    forms = ({"messages"}, {"conversations"}, {"prompt", "completion"}, {"input_ids"}, {text})
    if not any(form <= set(names) for form in forms):
        raise ValueError(
            f"The training data has the columns {names}. It needs `prompt` and `completion`, `messages`, or `{text}` "
            "(set `dataset_text_field` to the column of your texts)."
        )


def check_training_rows(rows: Any, text: str, name: str) -> None:
    """Check the values of training rows of any form that can be trained on.

    Args:
        rows: a `Dataset` with `messages`, `prompt` and `completion`, a column of texts, or token ids.
        text: name of the column of texts.
        name: what the data set is called in the error message.

    Raises:
        ValueError: for the first row that cannot be trained on; the message names data set, row and column.
    """
    names = rows.column_names
    pair = ("prompt", "completion")
    columns = ("messages",) if "messages" in names else pair if set(pair) <= set(names) else (text,)
    if "input_ids" in names:
        columns = ("input_ids",)
    if ("conversations" in names and "input_ids" not in names) or columns[0] not in names:
        return
    forms: dict[str, type] = {}
    for column in columns:
        faults = {"input_ids": ids_fault, "messages": messages_fault}.get(column, value_fault)
        for index, value in enumerate(rows[column]):
            kind = forms.setdefault(column, str if isinstance(value, str) else list)
            fault = faults(value)
            if not fault and not isinstance(value, kind):
                fault = "is of another form (text, or chat messages) than that of the rows before"
            if fault:
                raise ValueError(f"Row {index} of '{name}': `{column}` {fault}. {_REMEDY}")
    if len(set(forms.values())) > 1:
        raise ValueError(f"The rows of '{name}' mix text and chat messages. Give `prompt` and `completion` one form.")
    _check_template_columns(rows, name)


def _check_template_columns(rows: Any, name: str) -> None:
    for column in {"tools", "chat_template_kwargs"} & set(rows.column_names):
        for index, value in enumerate(rows[column]):
            template_options({column: value}, f"Row {index} of '{name}'")


def messages_fault(value: Any) -> str:
    """Say what is wrong with a value that is to be chat messages with an answer; empty where nothing is."""
    if isinstance(value, str):
        return f"is the text {value[:40]!r}, not chat messages"
    fault = value_fault(value)
    if not fault and not any(turn["role"] not in _ASKING for turn in value):
        return "has no answer: no message is of the role `assistant`"
    return fault


def ids_fault(value: Any) -> str:
    """Say what is wrong with a value that is to be token ids; empty where nothing is."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return f"is {str(value)[:40]!r} ({type(value).__name__}), not a list of token ids"
    if not value:
        return "has no token ids"
    wrong = next((part for part in value if isinstance(part, bool) or not isinstance(part, int) or part < 0), None)
    return "" if wrong is None else f"has {str(wrong)[:40]!r} among the token ids"


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
