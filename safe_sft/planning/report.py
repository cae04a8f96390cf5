"""Prints a plan as tables."""

from rich.console import Console
from rich.table import Table

from ..storage.terminal import console as terminal
from ..storage.terminal import shown, table
from .gpus import GIB, GPU, MIB
from .plan import Plan


def print_plan(plan: Plan, gpus: list[GPU], console: Console | None = None) -> None:
    """Print tables of memory, of a step and of GPUs, and what was assumed."""
    console = console or terminal()
    share = plan.trainable / plan.parameters
    console.print(shown(plan.model, "bold") + shown(f", safety_method {plan.method}"))
    console.print(f"{plan.parameters:,} parameters, {plan.trainable:,} trained ({share:.2%}): exact")
    console.print(_memory(plan), _step(plan), _gpus(plan, gpus))
    for note in plan.assumptions:
        console.print(shown(f"- {note}"))


def _memory(plan: Plan) -> Table:
    rows = table("memory", "size", "", "where", title=None)
    for item in plan.items:
        rows.add_row(item.name, size(item.size), item.basis, item.where)
    rows.add_section()
    rows.add_row("peak of a device", size(plan.device_bytes), "estimated", "device", style="bold")
    return rows


def _step(plan: Plan) -> Table:
    schedule, work = plan.schedule, plan.work
    rows = table("an optimizer step", "", "")
    rows.add_row("task rows", f"{schedule.task_rows}", "exact")
    rows.add_row("safety rows", f"{schedule.replay_rows:g} ({schedule.replay_row_share:.0%} of rows)", "exact")
    rows.add_row("task tokens", f"{schedule.task_tokens:,.0f}", "estimated")
    rows.add_row(
        "safety tokens", f"{schedule.replay_tokens:,.0f} ({schedule.replay_token_share:.0%} of tokens)", "estimated"
    )
    rows.add_row("steps", "not known" if schedule.steps is None else f"{schedule.steps:,}", "")
    rows.add_row("operations a device", f"{work.total / 1e12:,.3g} TFLOP", "estimated")
    parts = {"forward": work.forward, "backward": work.backward, "recomputed": work.recomputed}
    for name, value in {**parts, "aligned model": work.teacher, "head": work.head}.items():
        if value:
            rows.add_row(f"  {name}", f"{value / 1e12:,.3g} TFLOP", "estimated")
    return rows


def _gpus(plan: Plan, gpus: list[GPU]) -> Table:
    rows = table("GPU", "memory", "fits", "a step", "the run", title=None, caption="estimated")
    for gpu in gpus:
        hours = plan.hours(gpu)
        run = "not known" if hours is None else f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
        fits = shown("yes", "green") if gpu.fits(plan.device_bytes) else shown("no", "red")
        fits += shown("" if gpu.has_bf16 else " (no bf16)")
        rows.add_row(gpu.name, size(gpu.memory), fits, f"{plan.seconds_per_step(gpu):.2f} s", run)
    return rows


def size(count: int) -> str:
    """Write a number of bytes in the unit that reads best."""
    if count >= GIB / 10:
        return f"{count / GIB:.2f} GiB"
    return f"{count / MIB:.2f} MiB" if count >= MIB / 10 else f"{count:,} B"
