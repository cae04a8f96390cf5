"""Merge what a run has trained with the aligned model, and measure it: what `safe-sft experiment` starts for a merge.

python -m safe_sft.cli.merge_run --config RECIPE --tuned FOLDER
"""

import argparse

from .command import command
from .exits import Parser, Status, one_line_errors
from .recipe_arguments import Arguments
from .recipe_arguments import parse as parse_recipe


def parse(argv: list[str]) -> tuple[str, Arguments]:
    """Parse this command's own option, and the arguments of the run."""
    parser: argparse.ArgumentParser = Parser(prog="safe-sft experiment", allow_abbrev=False)
    parser.add_argument("--tuned", required=True)
    own, rest = parser.parse_known_args(argv)
    return own.tuned, parse_recipe(rest, "experiment")


def run(parsed: tuple[str, Arguments]) -> int:
    """Merge and measure."""
    from ..run.merged import measure_merge

    tuned, arguments = parsed
    with one_line_errors("experiment", TypeError):
        measure_merge(*arguments, tuned)
    return Status.DONE


main = command("experiment", parse, run)

if __name__ == "__main__":
    raise SystemExit(main())
