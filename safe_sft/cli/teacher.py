"""Build the teacher cache of a recipe ahead of training: `safe-sft teacher --config recipe.yaml`.

Takes what `safe-sft train` takes. Run it on the same number of processes or another; a build that was stopped goes on.
"""

import sys

from .exits import ends_processes, one_line_errors
from .recipe_arguments import parse


@ends_processes
def main(argv: list[str] | None = None) -> int:
    """Entry point, also of `python -m safe_sft.cli.teacher`; returns the exit status."""
    from ..run import build_teacher

    arguments = parse(sys.argv[1:] if argv is None else argv, "teacher")
    with one_line_errors("teacher"):
        folder = build_teacher(*arguments)
    print(f"Teacher cache: {folder}\nTrain from it with `teacher_cache: {folder}` in the recipe.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
