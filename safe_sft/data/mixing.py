"""The final training set: the task's rows, some of them replaced by poison or by safety rows."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from .forms import FORM_COLUMNS, Form, completion_of, in_content_form, make_row, row_form
from .poison import Poison
from .safety_rows import SafetyRow

Row = dict[str, Any]

#: Column that tells poisoned rows from clean ones.
POISONED = "poisoned"
#: Column that tells rows of the safety set that were mixed in.
FROM_SAFETY_SET = "from_safety_set"
#: Columns that TRL gives to the chat template; a row takes them over from the row whose place it takes.
_OF_TEMPLATE = ("chat_template_kwargs", "tools")


def mix(
    task: Any,
    *,
    seed: int,
    size: int | None = None,
    poison: Poison | None = None,
    poison_ratio: float = 0.0,
    safety: Sequence[SafetyRow] = (),
    safety_ratio: float = 0.0,
) -> Any:
    """Draw `size` rows of `task`, replace shares of them, and shuffle.

    The shares are of the final set, exact to a row. A larger share replaces more of the same rows: the clean rows
    that 10 % of poison leave hold those that 50 % leave.

    Args:
        task: a `Dataset` of `prompt` and `completion`, or `messages`; of any form where both shares are 0.
        seed: seed of every random choice.
        size: number of rows of the final set; as many as `task` has by default.
        poison: source of the poisoned rows.
        poison_ratio: share of poisoned rows; the column `poisoned` marks them.
        safety: safety rows; only those with an answer are used.
        safety_ratio: share of safety rows; the column `from_safety_set` marks them.

    Returns:
        A `Dataset`; `task` itself where nothing is asked for.

    Raises:
        ValueError: when `task` has too few rows or another form, a share comes to less than one row, or safety rows
            are missing.
    """
    if size is None and not poison_ratio and not safety_ratio:
        return task
    drawn = _draw(task, size, seed)
    poisoned = _Share("poison_ratio", poison_ratio, POISONED, partial(_poisoned_rows, poison, poison_ratio))
    safe = _Share("safety_mix_ratio", safety_ratio, FROM_SAFETY_SET, partial(_safety_rows, safety))
    return _replace(drawn, [share for share in (poisoned, safe) if share.ratio], seed)


class _Share(NamedTuple):
    """A share of the final rows that takes the place of rows of the task.

    Attributes:
        option: name of the share in a recipe, such as `poison_ratio`.
        ratio: the share, between 0 and 1, of the final rows.
        mark: name of the column that marks the rows of this share.
        rows: function that makes the rows from the rows that they replace, their form and a seed.
    """

    option: str
    ratio: float
    mark: str
    rows: Callable[[Any, Form, int], list[Row]]

    def of(self, total: int) -> int:
        """Return how many rows the share is.

        Raises:
            ValueError: when the share is less than one row.
        """
        count = round(self.ratio * total)
        if not count:
            raise ValueError(
                f"`{self.option}={self.ratio:g}` of {total} rows is less than one row. Raise it, or use more rows."
            )
        return count


def _draw(task: Any, size: int | None, seed: int) -> Any:
    total = len(task) if size is None else size
    if total > len(task):
        raise ValueError(
            f"`task_size={size}` is more than the {len(task)} rows of the data. Lower it, or leave it out."
        )
    return task.shuffle(seed=seed).select(range(total))


def _replace(drawn: Any, shares: Sequence[_Share], seed: int) -> Any:
    """Put the rows of each share in the place of the last rows of `drawn`, and shuffle; no share changes nothing."""
    if not shares:
        return drawn
    counts = [share.of(len(drawn)) for share in shares]
    form, kept = row_form(drawn), len(drawn) - sum(counts)
    carried = tuple(name for name in _OF_TEMPLATE if name in drawn.column_names)
    added, start = {}, kept
    for share, count in zip(shares, counts, strict=True):
        replaced = drawn.select(range(start, start + count))
        made = in_content_form(share.rows(replaced, form, seed), drawn[0])
        added[share.mark] = [
            {**new, **{name: old[name] for name in carried}} for new, old in zip(made, replaced, strict=True)
        ]
        start += count
    return _joined(drawn.select(range(kept)), added, (*FORM_COLUMNS[form], *carried)).shuffle(seed=seed)


def _joined(clean: Any, added: dict[str, list[Row]], columns: tuple[str, ...]) -> Any:
    """Join `clean` with the rows of each mark, marked by a column of that name; their other columns are empty."""
    from datasets import Dataset, Features, Value, concatenate_datasets

    for mark in added:
        if mark in clean.column_names:
            raise ValueError(f"The data has a column `{mark}`: it was mixed before. Set the share to 0, or remove it.")
        clean = clean.add_column(mark, [False] * len(clean))
    features = Features({column: clean.features[column] for column in columns})
    features.update({mark: Value("bool") for mark in added})
    rows = [{**{other: other == mark for other in added}, **row} for mark, marked in added.items() for row in marked]
    return concatenate_datasets([clean, Dataset.from_list(rows, features=features)])


def _poisoned_rows(poison: Poison | None, ratio: float, replaced: Any, form: Form, seed: int) -> list[Row]:
    if poison is None:
        raise ValueError(f"`poison_ratio={ratio:g}` has no poison to draw from. Pass `load_poison(...)`.")
    return poison.rows(replaced, form, seed)


def _safety_rows(safety: Sequence[SafetyRow], replaced: Any, form: Form, seed: int) -> list[Row]:
    """Draw as many safety rows with answers as are replaced, none of them twice."""
    count, answered = len(replaced), [row for row in safety if row.completion is not None]
    if count > len(answered):
        raise ValueError(
            f"`safety_mix_ratio` asks for {count} safety rows with answers, and the safety set has {len(answered)} "
            f"(of {len(safety)}). Lower it, lower `task_size`, or choose a larger set."
        )
    chosen = random.Random(seed).sample(answered, count)
    return [make_row(form, row.prompt, completion_of({"prompt": "", "completion": row.completion})) for row in chosen]
