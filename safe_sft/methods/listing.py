"""Texts about the methods for help and documentation, made from the registry."""

from .base import SafetyMethod
from .registry import ALIASES, METHODS


def summary(method: type[SafetyMethod]) -> str:
    """Return what a method adds to the loss, in a few words: its docstring's first line, without the full stop."""
    text = (method.__doc__ or "").strip().partition("\n")[0].removesuffix(".")
    return text if method.has_loss else f"Nothing. {text}"


def methods_table() -> str:
    """Return the README's Markdown table of the methods."""
    rows = [
        (f"`{name}`", summary(method), _needs(method), f"{method.default_weight:g}" if method.has_loss else "–")
        for name, method in METHODS.items()
    ]
    lines = [
        "| `safety_method` | adds to the loss | needs | default weight |",
        "|---|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells in rows),
        '| `der++`, `der+l2`, … | Their sum, each with its weight: `safety_weight: "3+100"` | | |',
        "| `none` | Nothing | | |",
    ]
    return "\n".join(lines)


def field_notes() -> dict[str, str]:
    """Return what the methods add to the help of `SafeSFTConfig`: name of a field -> text for argparse."""
    readers: dict[str, list[str]] = {}
    for name, method in METHODS.items():
        for field in method.reads:
            readers.setdefault(field, []).append(name)
    notes = {field: f"Read by: {', '.join(names)}." for field, names in readers.items()}
    sums = {name: methods for name, methods in ALIASES.items() if methods}
    weights = {name: f"{method.default_weight:g}" for name, method in METHODS.items() if method.has_loss}
    divergences = {name: method.divergence for name, method in METHODS.items() if method.divergence}
    notes["safety_method"] = _listed("Methods", {n: summary(m) for n, m in METHODS.items()} | sums)
    notes["safety_weight"] = _listed("Defaults", weights)
    notes["teacher_divergence"] = _listed("Defaults", divergences)
    return {field: note.replace("%", "%%") for field, note in notes.items()}


def _needs(method: type[SafetyMethod]) -> str:
    if method.needs_replay or method.needs_rows:
        return "safety prompts"
    return "a fresh LoRA" if method.needs_task_states and not method.keeps_task_losses else "nothing"


def _listed(heading: str, entries: dict[str, str]) -> str:
    return f"{heading}: {'; '.join(f'{name}: {text}' for name, text in entries.items())}."
