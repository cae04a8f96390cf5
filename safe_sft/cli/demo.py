"""Build a tiny aligned model, fine-tune it on poisoned data by several methods, and compare them. CPU, minutes."""

import argparse

from .command import command, options
from .exits import Status
from .numbers import seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the demo."""
    parser.add_argument("--output", default="demo_out", help="folder for results.json and demo.png")
    parser.add_argument("--seed", type=seed, default=0, help="of the data, the model and the training")
    parser.add_argument("--methods", nargs="+", default=["none", "l2", "er", "der"], help="safety methods to compare")


def run(args: argparse.Namespace) -> int:
    """Run the demo and print its table."""
    from ..demo.outcomes import print_outcomes
    from ..demo.run import run_demo
    from ..storage.folders import require_folder

    require_folder(args.output, "--output")
    outcomes = run_demo(args.output, args.seed, args.methods)
    print_outcomes(outcomes)
    print(f"Written: {args.output}/results.json and {args.output}/demo.png")
    return Status.DONE


main = command("demo", options("demo", __doc__, add_arguments), run)

if __name__ == "__main__":
    raise SystemExit(main())
