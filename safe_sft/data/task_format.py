"""Safety rows in the format of the task: the same requests, put as the task's own rows put theirs."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .forms import text_of
from .safety_rows import Messages, SafetyRow
from .tasks import REQUEST

#: Multiples of it, without their whole part, fill the interval from 0 to 1 evenly, however many there are.
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class TaskFormat:
    """Which safety rows wear the format of the task.

    Attributes:
        template: the format, a text with `{request}`.
        share: share of the rows that wear it, from 0 to 1.
        seed: seed of the draw.
    """

    template: str
    share: float
    seed: int

    def wears(self, row: int) -> bool:
        """Return whether a row wears the format; it depends on the seed and on the row's index alone.

        Of any run of rows the share is met but for a row or two, and the rows of a smaller share are among those of a
        larger one.
        """
        offset = random.Random(f"task-format-{self.seed}").random()
        return (offset + row * _GOLDEN) % 1 < self.share

    def dress(self, rows: Sequence[SafetyRow]) -> list[SafetyRow]:
        """Return the rows, of which a share wears the format in the last user turn; answers stay as they are.

        Raises:
            ValueError: for a row that is to wear it and has no user turn.
        """
        return [
            row._replace(prompt=self._dressed(row.prompt, index)) if self.wears(index) else row
            for index, row in enumerate(rows)
        ]

    def _dressed(self, prompt: str | Messages, index: int) -> str | Messages:
        if isinstance(prompt, str):
            return self.template.replace(REQUEST, prompt)
        places = [place for place, turn in enumerate(prompt) if turn["role"] == "user"]
        if not places:
            raise ValueError(
                f"Row {index} of the safety rows has no user turn to put in the task's format. Give it one, or set "
                "`safety_rows_in_task_format: 0`."
            )
        turn = prompt[places[-1]]
        request = self.template.replace(REQUEST, text_of(turn["content"]))
        return [*prompt[: places[-1]], {**turn, "content": request}, *prompt[places[-1] + 1 :]]
