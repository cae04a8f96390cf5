"""Build the teacher cache of a recipe ahead of training: `safe-sft teacher --config recipe.yaml`.

Takes what `safe-sft train` takes. Run it on the same number of processes or another; a build that was stopped goes on.
"""

from functools import partial

from .command import command
from .exits import Status, one_line_errors
from .recipe_arguments import Arguments, parse


def run(arguments: Arguments) -> int:
    """Build the cache, and say where it is."""
    from ..run import build_teacher

    with one_line_errors("teacher", TypeError):
        folder = build_teacher(*arguments)
    print(f"Teacher cache: {folder}\nTrain from it with `teacher_cache: {folder}` in the recipe.")
    return Status.DONE


main = command("teacher", partial(parse, command="teacher"), run, "The same command goes on where it was.")

if __name__ == "__main__":
    raise SystemExit(main())
