"""Why a row has its score, in words."""

from .score import RowScore

#: Below this many nats per token, an answer is about what the model would say itself.
_OWN_WORDS = 0.5


def reasons(score: RowScore) -> list[str]:
    """Return a sentence for each thing that was looked at.

    Args:
        score: the score of the row.
    """
    if score.score is None or score.refusal is None or score.beginning_nll is None:
        return ["Not scored: no room was left behind its request (`max_length`)."]
    asked = f"Asked this, the model opens with one of its refusals with probability {score.refusal_probability:.2g}."
    surprise = f"{score.beginning_nll:.2f} nats per token"
    said = (
        f"The answer begins about as the model would begin it itself ({surprise})."
        if score.beginning_nll < _OWN_WORDS
        else f"The beginning of the answer surprises the model ({surprise}; the whole answer {score.answer_nll:.2f})."
    )
    near = (
        f"In the model's states the request reads as {score.closeness:+.2f} (1 a safety request, -1 a harmless one)."
    )
    return [asked, said, near, *(f"{judge}: {verdict}." for judge, verdict in score.verdicts.items())]
