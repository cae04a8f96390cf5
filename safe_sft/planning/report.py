"""Prints a plan as tables."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .gpus import GIB, GPU, MIB
from .plan import Plan


def print_plan(plan: Plan, gpus: list[GPU], console: Console | None = None) -> None:
    """Print tables of memory, of a step and of GPUs, and what was assumed."""
    console = console or Console()
    share = plan.trainable / plan.parameters
    console.print(f"[bold]{escape(plan.model)}[/bold], safety_method {escape(plan.method)}")
    console.print(f"{plan.parameters:,} parameters, {plan.trainable:,} trained ({share:.2%}): exact")
    console.print(_memory(plan), _step(plan), _gpus(plan, gpus))
    for note in plan.assumptions:
        console.print(f"- {escape(note)}")


def _memory(plan: Plan) -> Table:
    table = Table("memory", "size", "", "where", title=None)
    for item in plan.items:
        table.add_row(escape(item.name), size(item.size), item.basis, item.where)
    table.add_section()
    table.add_row("peak of a device", size(plan.device_bytes), "estimated", "device", style="bold")
    return table


def _step(plan: Plan) -> Table:
    schedule, work = plan.schedule, plan.work
    table = Table("an optimizer step", "", "")
    table.add_row("task rows", f"{schedule.task_rows}", "exact")
    table.add_row("safety rows", f"{schedule.replay_rows} ({schedule.replay_row_share:.0%} of rows)", "exact")
    table.add_row("task tokens", f"{schedule.task_tokens:,.0f}", "estimated")
    table.add_row(
        "safety tokens", f"{schedule.replay_tokens:,.0f} ({schedule.replay_token_share:.0%} of tokens)", "estimated"
    )
    table.add_row("steps", "not known" if schedule.steps is None else f"{schedule.steps:,}", "")
    table.add_row("operations a device", f"{work.total / 1e12:,.3g} TFLOP", "estimated")
    parts = {"forward": work.forward, "backward": work.backward, "recomputed": work.recomputed}
    for name, value in {**parts, "aligned model": work.teacher, "head": work.head}.items():
        if value:
            table.add_row(f"  {name}", f"{value / 1e12:,.3g} TFLOP", "estimated")
    return table


def _gpus(plan: Plan, gpus: list[GPU]) -> Table:
    table = Table("GPU", "memory", "fits", "a step", "the run", title=None, caption="estimated")
    for gpu in gpus:
        hours = plan.hours(gpu)
        run = "not known" if hours is None else f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
        fits = "[green]yes[/green]" if gpu.fits(plan.device_bytes) else "[red]no[/red]"
        fits += "" if gpu.has_bf16 else " (no bf16)"
        table.add_row(gpu.name, size(gpu.memory), fits, f"{plan.seconds_per_step(gpu):.2f} s", run)
    return table


def size(count: int) -> str:
    """Write a number of bytes in the unit that reads best."""
    if count >= GIB / 10:
        return f"{count / GIB:.2f} GiB"
    return f"{count / MIB:.2f} MiB" if count >= MIB / 10 else f"{count:,} B"
