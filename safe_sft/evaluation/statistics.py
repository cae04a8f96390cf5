"""Proportions with their intervals, paired comparisons, and the agreement of two judges."""

from collections import Counter
from collections.abc import Hashable, Sequence
from math import ceil, comb, nan, sqrt
from typing import Any, NamedTuple

# Two-sided 95 % quantile of the normal distribution.
Z_95 = 1.959963984540054


def wilson_interval(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927, https://doi.org/10.2307/2276774).

    Args:
        successes: number of trials that count.
        n: number of trials; 0 gives `(0, 1)`.
        z: normal quantile, 1.96 for 95 %.
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding must not leave the point estimate outside at 0 and n successes.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def trials_for_bound(bound: float, z: float = Z_95) -> int:
    """Return the fewest trials that can show a proportion below `bound`: without success, Wilson's end is z²/(n + z²).

    Args:
        bound: upper bound on the proportion, in (0, 1].
        z: normal quantile, 1.96 for 95 %.
    """
    return max(1, ceil(z * z * (1 - bound) / bound - 1e-9))


class Rate(NamedTuple):
    """A proportion: `successes` of `n`."""

    successes: int
    n: int

    @property
    def not_measurable(self) -> str | None:
        """Why the rate must not be read as a number; None for one that may."""
        return None

    @property
    def value(self) -> float:
        """The share; 0 when `n` is 0."""
        return self.successes / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the share."""
        return wilson_interval(self.successes, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"

    def as_dict(self) -> dict[str, Any]:
        """Return value, interval, successes and n, for JSON."""
        low, high = self.interval
        return {"value": self.value, "low": low, "high": high, "successes": self.successes, "n": self.n}


class Unmeasurable(Rate):
    """A proportion that must not be read as a number: most of the answers say nothing, or have no verdict."""

    _why: str

    @classmethod
    def because(cls, why: str, successes: int, n: int) -> "Unmeasurable":
        """Make it from the counts and the reason.

        Args:
            why: the reason, such as `93 % degenerate`.
            successes: number of trials that count.
            n: number of trials.
        """
        rate = cls(successes, n)
        rate._why = why
        return rate

    @property
    def not_measurable(self) -> str:
        """Return the reason in words."""
        return self._why

    @property
    def value(self) -> float:
        """NaN, so that it keeps no bound."""
        return nan

    @property
    def interval(self) -> tuple[float, float]:
        """The interval from 0 to 1, since nothing is known."""
        return 0.0, 1.0

    def __str__(self) -> str:
        return f"not measurable: {self._why}"

    def as_dict(self) -> dict[str, Any]:
        """Return no value, the counts and the reason, for JSON."""
        counts: dict[str, Any] = {"successes": self.successes, "n": self.n}
        return {"value": None, "low": 0.0, "high": 1.0, **counts, "not_measurable": self._why}


class MeanRate(NamedTuple):
    """The mean of proportions of independent samples, each counted alike whatever its size.

    Attributes:
        rates: the proportions, at least one.
    """

    rates: tuple[Rate, ...]

    @property
    def n(self) -> int:
        """Number of trials of all samples."""
        return sum(rate.n for rate in self.rates)

    @property
    def not_measurable(self) -> str | None:
        """Why the mean must not be read as a number: one of its rates must not."""
        return next((rate.not_measurable for rate in self.rates if rate.not_measurable), None)

    @property
    def value(self) -> float:
        """The mean; NaN where a rate is not measurable."""
        return sum(rate.value for rate in self.rates) / len(self.rates)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval by the distances of the Wilson limits from each rate (Zou & Donner 2008, MOVER).

        https://doi.org/10.1002/sim.3095: the distances are weighted as the rates are, and added in squares.
        """
        if self.not_measurable:
            return 0.0, 1.0
        k, limits = len(self.rates), [rate.interval for rate in self.rates]
        below = sqrt(sum((rate.value - low) ** 2 for rate, (low, _) in zip(self.rates, limits, strict=True))) / k
        above = sqrt(sum((high - rate.value) ** 2 for rate, (_, high) in zip(self.rates, limits, strict=True))) / k
        return max(0.0, self.value - below), min(1.0, self.value + above)

    def __str__(self) -> str:
        if why := self.not_measurable:
            return f"not measurable: {why}"
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"

    def as_dict(self) -> dict[str, Any]:
        """Return value, interval and n, for JSON."""
        low, high = self.interval
        why = self.not_measurable
        measured = {"value": None if why else self.value, "low": low, "high": high, "n": self.n}
        return {**measured, "not_measurable": why} if why else measured


class PairedOutcomes(NamedTuple):
    """How many prompts had an outcome with both of two models, with one, or with neither.

    Attributes:
        both: number of prompts with the outcome for both models.
        first_only: number with the outcome for the first model only.
        second_only: number with the outcome for the second model only.
        neither: number with the outcome for neither.
    """

    both: int
    first_only: int
    second_only: int
    neither: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "PairedOutcomes":
        """Count two lists over the same prompts, in the same order."""
        counts = Counter(zip(map(bool, first), map(bool, second), strict=True))
        return cls(counts[True, True], counts[True, False], counts[False, True], counts[False, False])

    @property
    def n(self) -> int:
        """Number of prompts."""
        return sum(self)

    @property
    def difference(self) -> float:
        """Share of the second model minus share of the first; 0 without prompts."""
        return (self.second_only - self.first_only) / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `difference`, from the two Wilson intervals and the correlation of the pairs.

        Newcombe 1998, method 10 (https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C);
        `(-1, 1)` without prompts.
        """
        if not self.n:
            return -1.0, 1.0
        first = Rate(self.both + self.first_only, self.n)
        second = Rate(self.both + self.second_only, self.n)
        below = _combined(second.value - second.interval[0], first.interval[1] - first.value, self._correlation)
        above = _combined(second.interval[1] - second.value, first.value - first.interval[0], self._correlation)
        return max(-1.0, self.difference - below), min(1.0, self.difference + above)

    @property
    def p_value(self) -> float:
        """Exact two-sided McNemar test (https://doi.org/10.1007/BF02295996): a sign test of the discordant pairs."""
        discordant = self.first_only + self.second_only
        tail = sum(comb(discordant, k) for k in range(min(self.first_only, self.second_only) + 1))
        return min(1.0, 2 * tail / 2**discordant)

    @property
    def _correlation(self) -> float:
        """Newcombe's phi, with his continuity correction."""
        margins = (
            (self.both + self.first_only)
            * (self.second_only + self.neither)
            * (self.both + self.second_only)
            * (self.first_only + self.neither)
        )
        if not margins:
            return 0.0
        determinant = self.both * self.neither - self.first_only * self.second_only
        corrected = max(determinant - self.n / 2, 0.0) if determinant > 0 else determinant
        return corrected / sqrt(margins)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.difference:+.3f} [{low:+.3f}, {high:+.3f}]"

    def as_dict(self) -> dict[str, float | int]:
        """Return difference, interval, p-value, the discordant counts and n, for JSON."""
        low, high = self.interval
        return {
            "difference": self.difference,
            "low": low,
            "high": high,
            "mcnemar_p": self.p_value,
            "first_only": self.first_only,
            "second_only": self.second_only,
            "n": self.n,
        }


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two judges beyond chance (Cohen 1960, https://doi.org/10.1177/001316446002000104).

    Args:
        first: labels of one judge.
        second: labels of the other, of the same items in the same order.

    Returns:
        1 for full agreement, 0 for agreement by chance; None where undefined: no items, or one label throughout.
    """
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True))
    left, right = Counter(first), Counter(second)
    by_chance = sum(left[label] * right[label] for label in left)
    if n * n == by_chance:
        return None
    return (n * observed - by_chance) / (n * n - by_chance)


def _combined(one: float, other: float, correlation: float) -> float:
    return sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))
