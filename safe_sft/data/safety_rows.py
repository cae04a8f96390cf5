"""Reads safety data of any accepted form into prompts with an answer or without one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Messages = list[dict[str, Any]]


class SafetyRow(NamedTuple):
    """A request, and the answer that the model must not forget.

    Attributes:
        prompt: text, or chat messages.
        completion: text, or chat messages; None when the aligned model is to answer itself.
    """

    prompt: str | Messages
    completion: str | Messages | None


def read_safety_rows(dataset: Iterable[Mapping[str, Any]]) -> list[SafetyRow]:
    """Read rows of `prompt` + `completion`, `messages`, or `prompt` alone.

    Args:
        dataset: rows, such as a `datasets.Dataset`, an `IterableDataset` or a list of dictionaries.

    Raises:
        TypeError: when `dataset` is a dictionary of splits.
        ValueError: when `dataset` is empty or a row has none of the forms; the message names the row.
    """
    if isinstance(dataset, Mapping):
        raise TypeError(
            f"`safety_dataset` is a dictionary of splits ({', '.join(map(str, dataset))}). Pass one split of it."
        )
    rows = [_read(row, index) for index, row in enumerate(dataset)]
    if not rows:
        raise ValueError("`safety_dataset` is empty. Pass at least one row, or None for the built-in prompts.")
    return rows


def _read(row: Mapping[str, Any], index: int) -> SafetyRow:
    if not isinstance(row, Mapping):
        raise ValueError(
            f"Row {index} of `safety_dataset` is {type(row).__name__}, not a row with columns. Pass a "
            "`datasets.Dataset` or a list of dictionaries."
        )
    if row.get("images") or row.get("image"):
        raise ValueError(f"Row {index} of `safety_dataset` has images. Use text-only safety rows.")
    messages = row.get("messages")
    for turns in (messages, row.get("prompt"), row.get("completion")):
        _check_turns(turns, index)
    if messages:
        if messages[-1]["role"] == "assistant" and len(messages) > 1:
            return SafetyRow(list(messages[:-1]), [messages[-1]])
        return SafetyRow(list(messages), None)
    prompt, completion = row.get("prompt"), row.get("completion")
    if not prompt or completion in ("", []):
        raise ValueError(
            f"Row {index} of `safety_dataset` has columns {sorted(row)} and cannot be used: it needs a non-empty "
            "`prompt` with a `completion`, `messages`, or a `prompt` alone (then `completion` is absent or null)."
        )
    if completion is not None and isinstance(prompt, str) != isinstance(completion, str):
        raise ValueError(
            f"Row {index} of `safety_dataset` mixes text and chat messages. Give `prompt` and `completion` "
            "the same form."
        )
    return SafetyRow(prompt, completion)


def _check_turns(turns: Any, index: int) -> None:
    """Check that `turns` is a text, nothing, or chat messages with a role and a text each."""
    if turns is None or (isinstance(turns, str) and (turns.strip() or not turns)):
        return
    is_list = isinstance(turns, Sequence) and not isinstance(turns, str)
    if is_list and all(isinstance(t, Mapping) and t.get("role") and t.get("content") for t in turns):
        return
    raise ValueError(
        f"Row {index} of `safety_dataset` has {str(turns)[:80]!r} where a text or chat messages belong. Give each "
        "message a `role` and a `content`, and each text at least a word."
    )
