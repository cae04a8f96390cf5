"""The safety methods by name, and the grammar of `safety_method` and `safety_weight`."""

from collections.abc import Sequence
from typing import TypeVar

from .base import SafetyMethod

#: Name -> method, in the order in which help and tables show them.
METHODS: dict[str, type[SafetyMethod]] = {}

#: Names for sums of methods.
ALIASES = {"der++": "der+er", "none": ""}

#: The `safety_weight` that keeps a term at its budget.
AUTO = "auto"

_Method = TypeVar("_Method", bound=type[SafetyMethod])


def register(method: _Method) -> _Method:
    """Decorate the class of a method, so that `safety_method` can name it.

    Raises:
        ValueError: when another method has the same name.
    """
    if method.name in {*METHODS, *ALIASES}:
        raise ValueError(f"`name={method.name!r}` of {method.__name__} is taken by another method. Choose another.")
    METHODS[method.name] = method
    return method


def method_classes(spec: str) -> list[type[SafetyMethod]]:
    """Return the classes of a `safety_method` such as `der`, `der+l2` or `none`.

    Raises:
        ValueError: for an unknown or repeated name.
    """
    if not spec:
        raise ValueError("`safety_method` is empty. For plain fine-tuning, write `safety_method: none`.")
    expanded = ALIASES.get(spec, spec.replace("der++", ALIASES["der++"]))
    names = [name.strip() for name in expanded.split("+")] if expanded else []
    for name in names:
        if name not in METHODS:
            choices = ", ".join(sorted([*METHODS, *ALIASES]))
            raise ValueError(
                f"`safety_method={spec!r}` is unknown: there is no method {name!r}. Choose from: {choices}, or join "
                "several with '+', such as 'der+l2'."
            )
    if len(set(names)) < len(names):
        raise ValueError(f"`safety_method={spec!r}` names a method twice. Name each once, and give it its weight.")
    projecting = [name for name in names if METHODS[name].projects]
    if len(projecting) > 1:
        raise ValueError(
            f"`safety_method={spec!r}` projects the gradient twice, for {' and '.join(projecting)}, and only the last "
            "projection would hold. Name one of them."
        )
    return [METHODS[name] for name in names]


def default_weight(method: type[SafetyMethod], divergence: str | None) -> float:
    """Return the weight of a method's term where none is given.

    Args:
        method: class of the method.
        divergence: the run's `teacher_divergence`; None for the method's own.
    """
    named = divergence if isinstance(divergence, str) else ""  # other values are refused where all are looked at
    return method.default_weights.get(named, method.default_weight)


def method_weights(
    weight: str | float | Sequence[float | str] | None,
    methods: Sequence[type[SafetyMethod]],
    divergence: str | None = None,
) -> list[float | str]:
    """Return the weight of each method.

    Args:
        weight: a number, `"0.5+0.05"`, a list, or None for the methods' defaults. `auto`, alone or in the place of a
            number, is a weight that keeps the term at its budget; alone, the methods without a budget keep their
            defaults.
        methods: classes of the methods, from `method_classes`.
        divergence: the run's `teacher_divergence`, in whose unit the defaults are.

    Raises:
        ValueError: when a weight is not a number, negative or infinite, there are not as many weights as methods, or
            `auto` is asked of methods that have no budget.
    """
    defaults: list[float | str] = [default_weight(method, divergence) for method in methods]
    if weight == AUTO and any(method.has_budget for method in methods):
        return [AUTO if method.has_budget else default for method, default in zip(methods, defaults, strict=True)]
    if weight is None:
        return defaults
    weighted = [method for method in methods if method.has_loss]
    parts = weight.split("+") if isinstance(weight, str) else weight if isinstance(weight, Sequence) else [weight]
    try:
        if any(isinstance(part, bool) for part in parts):  # a bare `off` or `no` in YAML
            raise TypeError("a truth value is not a weight")
        weights = [AUTO if str(part).strip().lower() == AUTO else float(part) for part in parts]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`safety_weight={weight!r}` is not a number, nor numbers joined by '+'.") from error
    names = "+".join(method.name for method in methods) or "none"
    if len(weights) != len(weighted):
        raise ValueError(
            f"`safety_weight={weight!r}` has {len(weights)} weights for the {len(weighted)} terms of "
            f"`safety_method='{names}'`. Give one weight a term, joined by '+', or leave it out."
        )
    for method, value in zip(weighted, weights, strict=True):
        if value == AUTO and not method.has_budget:
            able = ", ".join(sorted(m.name for m in METHODS.values() if m.has_budget))
            raise ValueError(
                f"`safety_weight={weight!r}` is for terms with a budget, and `{method.name}` has none. Give it a "
                f"number, or choose from: {able}."
            )
    if not all(isinstance(value, str) or 0 <= value < float("inf") for value in weights):
        raise ValueError(f"`safety_weight={weight!r}` must be finite and at least 0.")
    for method, value in zip(weighted, weights, strict=True):
        if not isinstance(value, str) and value > method.largest_weight:
            raise ValueError(
                f"`safety_weight={weight!r}` gives `{method.name}` the weight {value:g}, and above "
                f"{method.largest_weight:g} it would unlearn what the task teaches. Lower it, or leave it out."
            )
    given = iter(weights)
    return [next(given) if method.has_loss else method.default_weight for method in methods]
