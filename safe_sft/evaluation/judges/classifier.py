"""A judge that is a sequence-classification model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...models.finite import require_finite
from ...models.generation import length_sorted_batches
from .base import Judge, Verdict, commit_of, judges_answers

#: What a label may mean.
_CHOICES = [verdict.value for verdict in (Verdict.REFUSED, Verdict.COMPLIED, Verdict.SAFE)]


class Classifier(Judge):
    """Reads request and answer as a pair of texts (or the answer alone) and maps the label to a verdict.

    Args:
        model: folder or Hub name of a sequence-classification model.
        labels: verdict for each label of the model, such as `{"REJECTION": "refused", "NORMAL": "complied"}`.
        answer_only: whether to show answers without their requests, for models that were trained in this way.
        batch_size: answers judged at a time.

    Raises:
        ValueError: when a label has no verdict, or a verdict is unknown.
    """

    def __init__(self, model: str, labels: Mapping[str, str], *, answer_only: bool = False, batch_size: int = 32):
        from transformers import AutoModelForSequenceClassification

        from ...models.loading import load_base, load_tokenizer

        self._model: Any = load_base(model, auto=AutoModelForSequenceClassification).eval()
        if torch.accelerator.is_available():
            self._model = self._model.to(torch.accelerator.current_accelerator())
        require_finite(self._model)
        self._tokenizer: Any = load_tokenizer(model)
        self._verdicts = _verdicts(self._model.config.id2label, labels, model)
        self._answer_only, self._batch_size = answer_only, batch_size
        self.name = f"classifier:{model.rstrip('/').rsplit('/', 1)[-1]}"
        self.tells_refusals = Verdict.REFUSED in self._verdicts.values()

    @property
    def revision(self) -> str | None:
        """The commit of the classifier's repository; None for a local one."""
        return commit_of(self._model)

    @judges_answers
    @torch.no_grad()
    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        """Return the verdict of the most likely label of each answer."""
        verdicts = [Verdict.UNJUDGED] * len(answers)
        for batch in length_sorted_batches([len(answer) for answer in answers], self._batch_size):
            texts = [[answers[i] for i in batch]]
            if not self._answer_only:
                texts.insert(0, [prompts[i] for i in batch])
            inputs = self._tokenizer(
                *texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            ).to(self._model.device)
            for i, label in zip(batch, self._model(**inputs).logits.argmax(-1).tolist(), strict=True):
                verdicts[i] = self._verdicts[label]
        return verdicts

    @property
    def _longest(self) -> int:
        """Return how many tokens the model can read; tokenizers without a limit give a very large number."""
        positions = getattr(self._model.config, "max_position_embeddings", 512)
        return min(self._tokenizer.model_max_length, positions)


def require_verdicts(labels: Mapping[str, str]) -> None:
    """Check that each label of a classifier is said to mean a verdict that there is.

    Args:
        labels: verdict for each label.

    Raises:
        ValueError: for an unknown verdict.
    """
    unknown = sorted(set(labels.values()) - set(_CHOICES))
    if unknown:
        raise ValueError(f"Verdict '{unknown[0]}' is unknown. Choose from: {', '.join(_CHOICES)}.")


def _verdicts(id2label: Mapping[int, str], labels: Mapping[str, str], model: str) -> dict[int, Verdict]:
    missing = [label for label in id2label.values() if label not in labels]
    if missing:
        raise ValueError(
            f"The classifier '{model}' has labels without a verdict: {', '.join(missing)}. Say what each means: "
            f"--judge_labels {' '.join(f'{label}=…' for label in id2label.values())} (one of {', '.join(_CHOICES)})."
        )
    strange = [label for label in labels if label not in id2label.values()]
    if strange:
        raise ValueError(
            f"The classifier '{model}' has no label '{strange[0]}'. Its labels are: {', '.join(id2label.values())}."
        )
    require_verdicts(labels)
    return {index: Verdict(labels[label]) for index, label in id2label.items()}
