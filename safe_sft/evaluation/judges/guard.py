"""A judge that is a guard model: a language model that was trained to say whether an answer is harmful."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from ...models.finite import require_finite
from ...models.generation import generate
from .base import Judge, Verdict, commit_of, judges_answers
from .guard_formats import GUARDS

# Where a guard is asked several questions, the worst answer counts.
_WORST_FIRST = (Verdict.COMPLIED, Verdict.UNJUDGED, Verdict.REFUSED, Verdict.SAFE)


class Guard(Judge):
    """Asks a guard model in its own format, in batches.

    Args:
        family: the kind of guard model, one of `GUARDS`.
        model: the guard model, on its device; None loads `name`.
        tokenizer: the guard's tokenizer, with the chat template it was published with.
        name: folder or Hub name of the guard to load; the usual member of the family by default.
        batch_size: questions asked at a time.

    Raises:
        ValueError: for an unknown family.
    """

    def __init__(
        self,
        family: str,
        model: nn.Module | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        name: str | None = None,
        batch_size: int = 16,
    ):
        if family not in GUARDS:
            raise ValueError(f"Guard '{family}' is unknown. Choose from: {', '.join(GUARDS)}.")
        self._format = GUARDS[family]()
        self.name = f"guard:{family}"
        self.tells_refusals = self._format.tells_refusals
        if model is None or tokenizer is None:
            from ...models.loading import load_model

            model, tokenizer = load_model(name or self._format.model)
        require_finite(model)
        self._model, self._tokenizer, self._batch_size = model, tokenizer, batch_size

    @property
    def revision(self) -> str | None:
        """The commit of the guard's repository; None for a local one."""
        return commit_of(self._model)

    @judges_answers
    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """Return a verdict for each answer; the worst one, where the guard has several policies."""
        asked = [
            self._format.questions(self._tokenizer, prompt, answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        questions = [question for texts in asked for question in texts]
        said = iter(map(self._format.read, self._ask(questions)))
        return [min((next(said) for _ in texts), key=_WORST_FIRST.index) for texts in asked]

    def _ask(self, questions: list[str]) -> list[str]:
        encode = self._tokenizer
        ids = [encode(text, add_special_tokens=self._format.special_tokens)["input_ids"] for text in questions]
        answers = generate(
            self._model,
            self._tokenizer,
            ids,
            max_new_tokens=self._format.max_new_tokens,
            batch_size=self._batch_size,
            description=f"Judging ({self.name})",
        )
        return self._tokenizer.batch_decode(answers, skip_special_tokens=True)
