"""Fine-tune with a safety method, from a YAML recipe.

    safe-sft train --config recipes/tiny/der.yaml [--field value …]
    accelerate launch -m safe_sft.cli.train --config recipes/tiny/der.yaml

The arguments are those of `trl sft`, those of `SafeSFTConfig`, and the safety data below.
"""

from signal import SIGINT
from typing import Any

from ..config.recipes import resolved_recipe
from ..storage.disk import writing
from .command import command
from .exits import Interrupted, Status, one_line_errors, say_error
from .recipe_arguments import Arguments
from .recipe_arguments import parse as parse_recipe


def parse(argv: list[str]) -> tuple[Arguments, dict[str, Any]]:
    """Parse the arguments; returns them with the one recipe that says the same as all of them."""
    return parse_recipe(argv, "train"), resolved_recipe(argv)


def run(parsed: tuple[Arguments, dict[str, Any]]) -> int:
    """Train and save; returns 1 when a bound was not kept (the model is saved then, too)."""
    from ..run import PushRefused, TooManyFlagged, build_run, train
    from ..trainer.callbacks import why_stopped
    from ..trainer.checkpoints import checkpoint_of, how_to_go_on

    arguments, recipe = parsed
    args = arguments[1]
    # Before anything is loaded and measured.
    args.resume_from_checkpoint = checkpoint_of(args.resume_from_checkpoint, str(args.output_dir))
    with one_line_errors("train", TypeError):
        try:
            prepared = build_run(*arguments, recipe=recipe)
        except TooManyFlagged as error:
            say_error("train", error)
            return Status.NOT_KEPT
    try:
        with writing(str(args.output_dir)):
            train(prepared)
    except KeyboardInterrupt as error:
        raise Interrupted(getattr(error, "signal", SIGINT), how_to_go_on(str(args.output_dir))) from error
    except PushRefused as error:
        say_error("train", error)
        return Status.NOT_KEPT
    if stopped := why_stopped(prepared.trainer):
        say_error("train", stopped)
        return Status.NOT_KEPT
    return Status.DONE


main = command("train", parse, run)

if __name__ == "__main__":
    raise SystemExit(main())
