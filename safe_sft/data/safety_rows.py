"""Reads safety data of any accepted form into prompts with an answer or without one."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

Messages = list[dict[str, Any]]

#: What published sets call the answer to a `prompt`; TRL's form, which is read, calls it `completion`.
_OTHER_NAMES = ("response", "answer", "output", "chosen", "target", "refusal")


class SafetyRow(NamedTuple):
    """A request, and the answer that the model must not forget.

    Attributes:
        prompt: text, or chat messages.
        completion: text, or chat messages; None when the aligned model is to answer itself.
        options: what the row's columns `chat_template_kwargs` and `tools` give to the chat template; None for nothing.
    """

    prompt: str | Messages
    completion: str | Messages | None
    options: dict[str, Any] | None = None


def read_safety_rows(dataset: Iterable[Mapping[str, Any]], name: str = "`safety_dataset`") -> list[SafetyRow]:
    """Read rows of `prompt` + `completion`, `messages`, or `prompt` alone.

    A prompt alone whose row holds an answer under another name is said, for the aligned model answers it anew.

    Args:
        dataset: rows, such as a `datasets.Dataset`, an `IterableDataset` or a list of dictionaries.
        name: what the rows are called in error messages.

    Raises:
        TypeError: when `dataset` is a dictionary of splits, or holds no rows at all.
        ValueError: when `dataset` is empty or a row has none of the forms; the message names the row.
    """
    if isinstance(dataset, Mapping):
        raise TypeError(
            f"`safety_dataset` is a dictionary of splits ({', '.join(map(str, dataset))}). Pass one split of it."
        )
    if not isinstance(dataset, Iterable):
        raise TypeError(
            f"`safety_dataset={dataset!r}` is no data set. Pass a `datasets.Dataset` or a list of dictionaries."
        )
    rows, unread = [], Counter[str]()
    for index, row in enumerate(dataset):
        rows.append(_read(row, index, name))
        if rows[-1].completion is None:
            unread.update(column for column in _OTHER_NAMES if row.get(column))
    if not rows:
        raise ValueError("`safety_dataset` is empty. Pass at least one row, or None for the built-in prompts.")
    for column, count in unread.items():
        logger.warning(
            "%d rows of %s have a `%s`, which is not read: the aligned model answers their prompts itself. If these "
            "are the answers to keep, rename the column `completion`.",
            count,
            name,
            column,
        )
    return rows


def _read(row: Mapping[str, Any], index: int, name: str) -> SafetyRow:
    if not isinstance(row, Mapping):
        raise ValueError(
            f"Row {index} of {name} is {type(row).__name__}, not a row with columns. Pass a "
            "`datasets.Dataset` or a list of dictionaries."
        )
    if row.get("images") or row.get("image"):
        raise ValueError(f"Row {index} of {name} has images. Use text-only safety rows.")
    messages, options = row.get("messages"), template_options(row, f"Row {index} of {name}") or None
    for turns in (messages, row.get("prompt"), row.get("completion")):
        _check_turns(turns, index, name)
    if isinstance(messages, str):
        raise ValueError(
            f"Row {index} of {name} has the text {messages[:80]!r} as `messages`. Give it as `prompt`, or write chat "
            "messages."
        )
    if messages:
        if messages[-1]["role"] == "assistant" and len(messages) > 1:
            return SafetyRow(list(messages[:-1]), [messages[-1]], options)
        return SafetyRow(list(messages), None, options)
    prompt, completion = row.get("prompt"), row.get("completion")
    if not prompt or completion in ("", []):
        raise ValueError(
            f"Row {index} of {name} has columns {sorted(row)} and cannot be used: it needs a non-empty "
            "`prompt` with a `completion`, `messages`, or a `prompt` alone (then `completion` is absent or null)."
        )
    if completion is not None and isinstance(prompt, str) != isinstance(completion, str):
        raise ValueError(
            f"Row {index} of {name} mixes text and chat messages. Give `prompt` and `completion` the same form."
        )
    return SafetyRow(prompt, completion, options)


def template_options(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what a row gives to the chat template: its columns `chat_template_kwargs` and `tools`, as in TRL.

    Args:
        row: a row of any form.
        where: the place of the row, for the error message.

    Raises:
        ValueError: when a column holds something else than a mapping, or a list of tools.
    """
    read = {name: _parsed(row.get(name)) for name in ("chat_template_kwargs", "tools")}
    for name, kind in (("chat_template_kwargs", Mapping), ("tools", Sequence)):
        value = read[name]
        if value is not None and (not isinstance(value, kind) or isinstance(value, str)):
            needed = "a mapping, such as {'enable_thinking': false}" if kind is Mapping else "a list of tools"
            raise ValueError(f"{where} has `{name}={str(value)[:80]!r}`. It must be {needed}, as JSON or as it is.")
    given = {name: value for name, value in (read["chat_template_kwargs"] or {}).items() if value is not None}
    return {**({"tools": list(read["tools"])} if read["tools"] else {}), **given}


def _parsed(value: Any) -> Any:
    """Read JSON, as columns of mixed rows hold it; other values, and texts that are no JSON, stay as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        return value


def _check_turns(turns: Any, index: int, name: str) -> None:
    """Check that `turns` is a text, nothing, or chat messages with a role and a text each."""
    if turns is None or (isinstance(turns, str) and (turns.strip() or not turns)):
        return
    if isinstance(turns, Sequence) and not isinstance(turns, str) and all(map(_speaks, turns)):
        return
    raise ValueError(
        f"Row {index} of {name} has {str(turns)[:80]!r} where a text or chat messages belong. Give each "
        "message a `role` and a `content`, and each text at least a word."
    )


def _speaks(turn: Any) -> bool:
    """Whether a message has a role, and a content that says something, or calls a tool."""
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str) or not turn["role"]:
        return False
    content = turn.get("content")
    if isinstance(content, list):
        are_texts = all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in content)
        return are_texts and any(p["text"].strip() for p in content)
    return bool(content.strip()) if isinstance(content, str) else content is None and bool(turn.get("tool_calls"))
