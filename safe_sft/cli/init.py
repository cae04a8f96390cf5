"""Write a commented recipe for a model, a data set and a GPU; every setting can be changed afterwards."""

import argparse
import sys
from pathlib import Path

from .command import command, options
from .exits import Status
from .unread import Rule

_RULES = (Rule("overwrite", "`--output`", lambda args: args.output is not None),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `safe-sft init`."""
    parser.add_argument("--model", required=True, help="the aligned model: folder or Hub name")
    parser.add_argument(
        "--data", required=True, help="what to train on: gsm8k, sst2, code, a local file, or a data set of the Hub"
    )
    parser.add_argument("--gpu", default="24GB", help="a GPU by name, or its memory (default: 24GB)")
    parser.add_argument("--method", default="der", help="safety method (default: der)")
    parser.add_argument("--output", type=Path, help="file to write; default: print it")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.add_argument("--force", dest="overwrite", action="store_true", help=argparse.SUPPRESS)  # its old name


def run(args: argparse.Namespace) -> int:
    """Write the recipe.

    Raises:
        FileExistsError: when the file exists and may not be replaced.
        ValueError: when the model, the method or the GPU is unknown, or the model does not fit.
    """
    from ..storage.folders import require_folder, require_no_folder

    if args.output is not None:
        require_no_folder(args.output, "--output")
        if args.output.exists() and not args.overwrite:
            raise FileExistsError(f"'{args.output}' exists. Give another `--output`, or `--overwrite` to replace it.")
        require_folder(args.output.parent, "--output")
    from ..planning.write_recipe import write_recipe
    from ..storage.writing import write_text

    text = write_recipe(args.model, args.data, args.gpu, args.method, str(args.output or "recipe.yaml"))
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(args.output, text)
        print(f"Wrote {args.output}\nNext: safe-sft plan --config {args.output}")
    return Status.DONE


main = command("init", options("init", __doc__, add_arguments, _RULES), run)

if __name__ == "__main__":
    raise SystemExit(main())
