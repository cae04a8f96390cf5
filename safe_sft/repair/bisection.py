"""The largest weight of a merge with the aligned model that keeps the bounds of safety."""

from collections.abc import Callable

from ..evaluation import Evaluation, ModelSpec
from ..evaluation.answering import AnswerStore
from ..merging.loaded import load_merge
from .exam import Exam, kept
from .inputs import Inputs

#: The merge whose weight is searched: of an adapter with its own base, it is that adapter, scaled.
METHOD = "linear"


def largest_weight(keeps: Callable[[float], bool], halvings: int) -> float:
    """Bisect for the largest weight that keeps the bounds, where 0 keeps them and 1 does not.

    Safety is taken to fall as the weight rises. Where it does not, the weight that is found keeps the bounds all the
    same, and need not be the largest.

    Args:
        keeps: function that measures a weight.
        halvings: number of weights that are measured; the result is exact to `2 ** -halvings`.

    Returns:
        A weight that was measured and kept the bounds; 0 where none did.
    """
    low, high = 0.0, 1.0
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def safe_weight(
    inputs: Inputs,
    exam: Exam,
    aligned: Evaluation,
    store: AnswerStore,
    halvings: int,
    say: Callable[[str], None],
) -> float:
    """Search the weight of the merge; one model is loaded, whose weights are overwritten for each weight.

    Args:
        inputs: the model and the aligned one.
        exam: what is asked, and the bounds.
        aligned: what was measured of the aligned model, which keeps the bounds.
        store: the answers that are known already.
        halvings: number of weights that are measured.
        say: says what was found at each weight.

    Returns:
        The weight; 0 where no other keeps the bounds.

    Raises:
        ValueError: when the models cannot be merged.
    """
    merged = load_merge(inputs.aligned.label, inputs.model.label, METHOD)
    questions = exam.of_safety

    def keeps(weight: float) -> bool:
        merged.set_weight(weight)
        measured = questions.of_loaded(ModelSpec("merge", ""), merged.model, merged.tokenizer, store)
        found = kept(questions.safety(aligned, measured))
        rates = ", ".join(f"{one.suite.name} {one.headline}" for one in measured.safety)
        say(f"Merge weight {weight:g}: {rates}: {'kept' if found else 'not kept'}")
        return found

    return largest_weight(keeps, halvings)
