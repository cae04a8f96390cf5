"""Merge weights: one number for all tensors, or patterns of tensor names with a number each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any

from ..storage.yaml_files import read_yaml
from .methods import merge_method

#: The key for tensors that no pattern matches.
DEFAULT = "default"


@dataclass(frozen=True)
class MergeWeights:
    """The weight of each tensor, by its name in the full model.

    A merge that has a threshold in place of a weight takes it in the same way.

    Attributes:
        default: weight of tensors that no pattern matches; None when every tensor must match one.
        patterns: shell patterns of whole names (`*`, `?`, `[0-9]`) and their weights; the first that matches counts.
    """

    default: float | None
    patterns: tuple[tuple[str, float], ...] = ()

    @classmethod
    def read(cls, weight: float | str | Path | Mapping[str, float], method: str) -> "MergeWeights":
        """Read a number, a mapping of patterns, or the path of a YAML file with such a mapping.

        Args:
            weight: the number, mapping or path.
            method: one of `MERGE_METHODS`, which says what the numbers may be.

        Raises:
            ValueError: for an unknown method or a weight that is not a number in its range.
            FileNotFoundError: when the YAML file does not exist.
        """
        number = merge_method(method).number
        if isinstance(weight, (str, Path)):
            weight = _number_or_file(str(weight))
        if not isinstance(weight, Mapping):
            return cls(_checked(weight, method, f"The merge {number}"))
        numbers = {str(k): _checked(v, method, f"The {number} of {str(k)!r}") for k, v in weight.items()}
        return cls(numbers.pop(DEFAULT, None), tuple(numbers.items()))

    def of(self, names: Iterable[str]) -> dict[str, float]:
        """Return the weight of each tensor name.

        Raises:
            ValueError: when a pattern matches no name, or a name has no pattern and there is no default.
        """
        weights, unused = {}, [pattern for pattern, _ in self.patterns]
        for name in names:
            match = next((p for p in self.patterns if fnmatchcase(name, p[0])), None)
            if match is None and self.default is None:
                raise ValueError(
                    f"No pattern of the merge weights matches the tensor '{name}', and there is no default. Add "
                    f"`{DEFAULT}: 0.5`, or another number."
                )
            weights[name] = match[1] if match else self.default
            unused = [pattern for pattern in unused if not fnmatchcase(name, pattern)]
        if unused:
            example = next(iter(weights), "none")
            raise ValueError(
                f"The pattern {unused[0]!r} of the merge weights matches none of the {len(weights)} tensor names, "
                f"such as '{example}'. Patterns match whole names: write `*mlp*` rather than `mlp`."
            )
        return weights  # type: ignore[return-value]

    def as_json(self) -> float | dict[str, float]:
        """Return the weights as the user wrote them: a number, or patterns with the default."""
        if not self.patterns and self.default is not None:
            return self.default
        return {**dict(self.patterns), **({} if self.default is None else {DEFAULT: self.default})}


def _number_or_file(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        pass
    if not Path(text).is_file():
        raise FileNotFoundError(
            f"The merge weight {text!r} is neither a number nor a file. Give a number such as 0.6, or the path of a "
            "YAML file of patterns and weights."
        )
    try:
        content = read_yaml(Path(text))
    except ValueError as error:
        raise ValueError(f"The merge weights '{text}' cannot be read: {error}") from error
    if not isinstance(content, Mapping) or not content:
        raise ValueError(
            f"'{text}' holds no patterns with weights. Write one `pattern: weight` a line, and `{DEFAULT}: weight`."
        )
    return content


def _checked(value: Any, method: str, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError(f"{what} is {value!r}, which is not a finite number. Write one such as 0.6.")
    taken = merge_method(method)
    if taken.interval is not None and not taken.interval[0] <= value <= taken.interval[1]:
        low, high = taken.interval
        further = ", or use `task_arithmetic` to extrapolate" if method in ("linear", "slerp") else ""
        raise ValueError(
            f"{what} is {value}, outside [{low:g}, {high:g}], where `{method}` takes it ({taken.tells}). Choose one "
            f"inside{further}."
        )
    return float(value)
