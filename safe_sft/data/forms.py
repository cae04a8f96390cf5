"""The forms of training rows that can be read and written: text pairs, chat pairs, chat messages."""

from collections.abc import Mapping
from typing import Any, Literal

from .safety_rows import Messages

Form = Literal["text", "chat", "messages"]
FORM_COLUMNS: dict[Form, tuple[str, ...]] = {
    "text": ("prompt", "completion"),
    "chat": ("prompt", "completion"),
    "messages": ("messages",),
}


def row_form(dataset: Any) -> Form:
    """Tell the form of a data set from its columns and its first row.

    Raises:
        ValueError: when the data set is empty, or has neither `prompt` and `completion` nor `messages`.
    """
    if len(dataset) == 0:
        raise ValueError("The training data has no rows. Give at least one.")
    if "messages" in dataset.column_names:
        return "messages"
    if {"prompt", "completion"} <= set(dataset.column_names):
        return "text" if isinstance(dataset[0]["prompt"], str) else "chat"
    raise ValueError(
        f"The training data has the columns {dataset.column_names}. Rows can be mixed in where it has `prompt` and "
        "`completion`, or `messages`; convert it, or leave `poison_ratio` and `safety_mix_ratio` at 0."
    )


def prompt_of(row: Mapping[str, Any]) -> str | Messages:
    """Return the prompt of a row of any form (of `messages`, all but a last answer); empty where there is none."""
    if not row.get("messages"):
        return row.get("prompt") or ""
    messages = list(row["messages"])
    return messages[:-1] if len(messages) > 1 and messages[-1]["role"] == "assistant" else messages


def completion_of(row: Mapping[str, Any]) -> str:
    """Return the text of a row's answer; empty where there is none."""
    if row.get("messages"):
        last = row["messages"][-1]
        return text_of(last.get("content")) if last["role"] == "assistant" else ""
    completion = row["completion"] or ""
    return completion if isinstance(completion, str) else text_of(completion[-1].get("content"))


def text_of(content: Any) -> str:
    """Return the text of a message's content, which may be a text, parts of which some are texts, or nothing."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return "" if content is None else str(content)


def as_messages(prompt: str | Messages, role: str = "user") -> Messages:
    """Return chat messages; a text becomes one turn of `role`."""
    return [{"role": role, "content": prompt}] if isinstance(prompt, str) else list(prompt)


def with_template_kwargs(dataset: Any, options: Mapping[str, Any]) -> Any:
    """Return a data set whose rows give these variables to the chat template, in TRL's column `chat_template_kwargs`.

    Args:
        dataset: a `Dataset` or `IterableDataset` of training rows; one that is tokenised already stays as it is.
        options: the variables; those that a row has itself win.
    """
    column = "chat_template_kwargs"
    if "input_ids" in (dataset.column_names or ()):
        return dataset
    return dataset.map(lambda row: {column: {**options, **(row.get(column) or {})}})


def make_row(form: Form, prompt: str | Messages, completion: str) -> dict[str, Any]:
    """Make a row of `form` from messages with a role and a text each; in a text row, turns become paragraphs."""
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in as_messages(prompt)]
    if form == "text":
        text = prompt if isinstance(prompt, str) else "\n\n".join(text_of(turn["content"]) for turn in turns)
        return {"prompt": text, "completion": completion}
    answer = [{"role": "assistant", "content": completion}]
    return {"messages": turns + answer} if form == "messages" else {"prompt": turns, "completion": answer}


def in_content_form(rows: list[dict[str, Any]], like: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give the messages of `rows` their content as the messages of another row have it: as texts, or in parts.

    Args:
        rows: rows from `make_row`; text rows stay as they are.
        like: a row of the same form.
    """
    known = [turn for value in like.values() if isinstance(value, list) for turn in value if isinstance(turn, dict)]
    in_parts = any(isinstance(turn.get("content"), list) for turn in known)

    def converted(turn: dict[str, Any]) -> dict[str, Any]:
        content = turn["content"]
        if in_parts == isinstance(content, list):
            return turn
        return {**turn, "content": [{"type": "text", "text": content}] if in_parts else text_of(content)}

    return [
        {
            name: [converted(turn) for turn in value] if isinstance(value, list) else value
            for name, value in row.items()
        }
        for row in rows
    ]
