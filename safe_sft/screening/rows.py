"""Training rows as answers to requests, in token ids, rendered as the model is asked."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..data.forms import as_messages, completion_of, prompt_of, text_of
from ..data.rendering import TemplateOptions
from ..data.safety_rows import Messages, SafetyRow, template_options
from ..data.tokenization import TokenizedRow, prompt_token_ids, tokenize_row
from ..data.values import messages_fault, value_fault

#: Tokens that are left for a forced opening behind a request, and for at least a beginning of the answer.
ROOM = 8


class Exchange(NamedTuple):
    """An answer of a training row, and what it answers.

    Attributes:
        request: text, or the chat messages before the answer.
        answer: text, or the chat messages of the answer.
    """

    request: str | Messages
    answer: str | Messages

    @property
    def asked(self) -> str:
        """What the last user turn says."""
        turns = as_messages(self.request)
        users = [turn for turn in turns if turn["role"] == "user"] or turns
        return text_of(users[-1].get("content"))

    @property
    def said(self) -> str:
        """The text of the answer."""
        return completion_of({"prompt": "", "completion": self.answer})


class TokenizedExchange(NamedTuple):
    """The same in token ids.

    Attributes:
        row: request and answer, with labels on the answer.
        request: token ids of the request, up to where its answer begins.
    """

    row: TokenizedRow
    request: list[int]


def require_columns(names: Sequence[str], name: str) -> None:
    """Check that rows have requests and answers.

    Args:
        names: names of their columns.
        name: what the rows are called in the error message.

    Raises:
        ValueError: when they have none.
    """
    if "messages" not in names and not {"prompt", "completion"} <= set(names):
        raise ValueError(
            f"'{name}' has the columns {list(names)}. Rows are screened by what they answer to what: give `prompt` "
            "and `completion`, or `messages`."
        )


def exchanges(row: Mapping[str, Any], index: int, name: str) -> list[Exchange]:
    """Return every answer of a row with what comes before it: of a conversation, each turn of the assistant.

    Args:
        row: a row of `messages`, or of `prompt` and `completion`.
        index: place of the row, for error messages.
        name: what the rows are called in error messages.

    Raises:
        ValueError: for a row that cannot be trained on; the message names rows, place and column.
    """
    _require_values(row, index, name)
    if not row.get("messages"):
        completion = row["completion"]
        return [Exchange(prompt_of(row), completion if isinstance(completion, str) else list(completion))]
    turns = list(row["messages"])
    places = [place for place, turn in enumerate(turns) if place and turn["role"] == "assistant"]
    if not places:
        raise ValueError(
            f"Row {index} of '{name}': `messages` has no request before its answer. Add it, or remove the row."
        )
    return [Exchange(turns[:place], [turns[place]]) for place in places]


def tokenize(
    processing_class: Any,
    exchange: Exchange,
    row: Mapping[str, Any],
    where: str,
    *,
    max_length: int,
    options: TemplateOptions | None = None,
) -> TokenizedExchange | None:
    """Render an exchange through the model's chat template; None where no room is left behind the request.

    Args:
        processing_class: the model's tokenizer or processor.
        exchange: what is rendered.
        row: the row that it is from, whose own variables of the template win.
        where: the place of the row, for error messages.
        max_length: most tokens; what is longer is cut off at the end.
        options: further variables of the chat template.

    Raises:
        ValueError: when the template refuses the row, or drops its text.
    """
    own = {**(options or {}), **template_options(row, where)}
    try:
        request = prompt_token_ids(processing_class, exchange.request, own)
        whole = tokenize_row(processing_class, SafetyRow(*_of_one_form(exchange)), max_length, own)
    except ValueError as error:
        raise ValueError(f"{where} cannot be rendered. {error} Mend the row, or remove it.") from error
    fits = len(request) + ROOM <= max_length and whole.supervised_tokens
    return TokenizedExchange(whole, request) if fits else None


def _of_one_form(exchange: Exchange) -> Exchange:
    """Return request and answer as chat messages where one of them is."""
    if isinstance(exchange.request, str) is isinstance(exchange.answer, str):
        return exchange
    return Exchange(as_messages(exchange.request), as_messages(exchange.answer, role="assistant"))


def _require_values(row: Mapping[str, Any], index: int, name: str) -> None:
    columns = ("messages",) if row.get("messages") else ("prompt", "completion")
    for column in columns:
        fault = (messages_fault if column == "messages" else value_fault)(row.get(column))
        if fault:
            raise ValueError(f"Row {index} of '{name}': `{column}` {fault}. Fill it in, or remove the row.")
    if row.get("images") or row.get("image"):
        raise ValueError(f"Row {index} of '{name}' has images, which are not looked at. Screen rows of text alone.")
