"""Fine-tune with a safety method, from a YAML recipe.

    safe-sft train --config recipes/tiny/der.yaml [--field value …]
    accelerate launch -m safe_sft.cli.train --config recipes/tiny/der.yaml

The arguments are those of `trl sft`, those of `SafeSFTConfig`, and the safety data below.
"""

import sys

from ..config.recipes import resolved_recipe
from .exits import ends_processes, one_line_errors
from .recipe_arguments import parse


@ends_processes
def main(argv: list[str] | None = None) -> int:
    """Entry point, also of `python -m safe_sft.cli.train`; returns the exit status."""
    from ..run import PushRefused, build_run, require_checkpoint, train
    from ..storage.hub import HubError

    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    with one_line_errors("train"):
        require_checkpoint(arguments[1])
        run = build_run(*arguments, recipe=resolved_recipe(argv))
    try:
        train(run)
    except (HubError, PushRefused) as error:  # the model is saved
        print(f"safe-sft train: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
