"""Finds the requests of the task that the aligned model refuses, so that its refusals of them can be replayed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate.logging import get_logger
from torch import nn

from ..config.safe_sft_config import SafeSFTConfig
from ..data import SafetyRow, TokenizedRow, prompt_token_ids
from ..data.endings import unreached_endings
from ..data.forms import prompt_of
from ..data.leaks import compared_text
from ..data.rendering import text_tokenizer
from ..data.safety_rows import Messages
from ..data.subset import evenly_spread
from ..models.modes import placed
from .kept_answers import own_answers
from .safety_set import SafetySet, refusals

logger = get_logger(__name__)

#: Tokens of an answer that tell whether it refuses.
GLANCE = 24
#: Requests of the task that are asked where their refusals are not replayed.
SAMPLE = 64
#: Requests that share this many first or last words are of one form, such as a task's instruction.
_FORM_WORDS = 6
#: A form with at least so many requests, of which at least this share is refused, is over-refusal: an attack is a
#: small part of the task, and an over-cautious model refuses much of it.
_FORM_ROWS, _FORM_SHARE = 8, 0.25
#: A form is the task's own only where at least this share of all requests has it; attacks have forms, too.
_FORM_OF_TASK = 0.1

Prompt = str | Messages


@dataclass(frozen=True)
class TaskRefusals:
    """The requests of a task that the aligned model refuses.

    Attributes:
        rows: a safety row without an answer for each of them, none twice.
        asked: how many requests the aligned model was asked.
        over_refused: first words of a form of request -> how many requests of that form it refuses, which are the task
            itself and are not among `rows`.
    """

    rows: tuple[SafetyRow, ...]
    asked: int
    over_refused: Mapping[str, int]


def task_prompts(dataset: Iterable[Mapping[str, Any]] | None) -> list[Prompt]:
    """Return the requests of training rows, each once, in order.

    Args:
        dataset: rows of `prompt` and `completion`, or `messages`.

    Raises:
        ValueError: when the rows are streamed or have no requests.
    """
    if dataset is None or not hasattr(dataset, "__len__"):
        raise ValueError(
            "`safety_from_task` asks the aligned model every request of the task, and streamed rows never end. Remove "
            "it, or load the rows without `streaming`."
        )
    prompts: dict[str, Prompt] = {}
    for row in dataset:
        prompt = prompt_of(row)
        if text := compared_text(prompt):
            prompts.setdefault(text, prompt)
    if not prompts:
        raise ValueError(
            "`safety_from_task` asks the aligned model the requests of the task, and its rows have none. Give rows of "
            "`prompt` and `completion`, or of `messages`; or remove it."
        )
    return list(prompts.values())


def task_refusals(
    model: nn.Module, processing_class: Any, prompts: Sequence[Prompt], args: SafeSFTConfig
) -> list[TokenizedRow]:
    """Return the requests of the task that the aligned model refuses, with its refusals, as token rows.

    Args:
        model: the aligned model.
        processing_class: its tokenizer or processor.
        prompts: requests of the task, from `task_prompts`; none asks for nothing.
        args: the trainer's `SafeSFTConfig`.
    """
    if not prompts:
        return []
    found = find_refusals(model, processing_class, prompts, args)
    _say(found)
    return SafetySet(found.rows).tokenize(model, processing_class, args) if found.rows else []


def warn_of_refusals(
    model: nn.Module,
    processing_class: Any,
    dataset: Iterable[Mapping[str, Any]],
    args: SafeSFTConfig,
    safety: Sequence[SafetyRow] = (),
) -> None:
    """Warn when the aligned model refuses requests of the task and nothing replays these refusals.

    Where the safety rows are replayed, say too which of these requests end as no safety row does.

    Args:
        model: the aligned model.
        processing_class: its tokenizer or processor.
        dataset: rows of `prompt` and `completion`, or `messages`; at most `SAMPLE` of their requests are asked.
        args: the trainer's `SafeSFTConfig`.
        safety: the safety rows that are replayed; none where none are.
    """
    prompts = task_prompts(dataset)
    found = find_refusals(model, processing_class, evenly_spread(prompts, SAMPLE), args)
    _say_over_refused(found)
    if found.rows:
        texts = [[compared_text(row.prompt) for row in rows] for rows in (found.rows, safety)]
        said = unreached_endings(*texts)
        logger.warning(
            f"The aligned model refuses {len(found.rows)} of {found.asked} requests of the task (of {len(prompts)}), "
            f"such as {texts[0][0][:80]!r}. To train on such rows teaches it to comply with others like them, which a "
            f"safety set need not reach. {said + ' ' if said else ''}Look at them; with `der` or `er`, "
            "`safety_from_task: true` replays its refusals."
        )


def find_refusals(
    model: nn.Module, processing_class: Any, prompts: Sequence[Prompt], args: SafeSFTConfig
) -> TaskRefusals:
    """Ask the aligned model every request, and keep those that it refuses; each rank asks its share.

    Where much of the requests of one form is refused, an over-cautious model refuses the task itself: these requests
    are not kept, for replay would then protect the refusal of what is to be learned.

    Args:
        model: the aligned model.
        processing_class: its tokenizer or processor.
        prompts: requests of the task, from `task_prompts`.
        args: the trainer's `SafeSFTConfig`.
    """
    tokenizer = text_tokenizer(processing_class)
    ids = [prompt_token_ids(processing_class, prompt, args.template_options) for prompt in prompts]
    with placed(model, args.device):
        answers = own_answers(model, tokenizer, ids, args, max_new_tokens=GLANCE, what="task's requests")
    refused = {place for place, refuses in enumerate(refusals(tokenizer, ids, answers)) if refuses}
    over = over_refused_forms([compared_text(prompt) for prompt in prompts], refused)
    kept = sorted(refused.difference(*over.values()))
    return TaskRefusals(
        tuple(SafetyRow(prompts[place], None) for place in kept),
        len(prompts),
        {form: len(places) for form, places in over.items()},
    )


def over_refused_forms(texts: Sequence[str], refused: set[int]) -> dict[str, set[int]]:
    """Return the forms of request that are refused as a whole: their words -> the refused requests of that form.

    Args:
        texts: the requests.
        refused: places of those that are refused.
    """
    forms: dict[str, set[int]] = defaultdict(set)
    for place, text in enumerate(texts):
        words = text.split()
        if len(words) > _FORM_WORDS:
            forms[" ".join(words[:_FORM_WORDS]) + " …"].add(place)
            forms["… " + " ".join(words[-_FORM_WORDS:])].add(place)
    return {
        form: places & refused
        for form, places in forms.items()
        if len(places) >= max(_FORM_ROWS, _FORM_OF_TASK * len(texts))
        and len(places & refused) >= _FORM_SHARE * len(places)
    }


def _say_over_refused(found: TaskRefusals) -> None:
    for form, count in found.over_refused.items():
        logger.warning(
            f"The aligned model refuses {count} of the task's requests of the form {form!r}: it refuses the task "
            "itself. These refusals are not protected, for the task is to be learned."
        )


def _say(found: TaskRefusals) -> None:
    _say_over_refused(found)
    if found.rows:
        logger.warning(
            f"The aligned model refuses {len(found.rows)} of the {found.asked} requests of the task. Every second "
            "replayed row is one of these refusals (`safety_from_task`); the training rows stay as they are."
        )
    else:
        logger.info(f"The aligned model refuses none of the {found.asked} requests of the task.")
