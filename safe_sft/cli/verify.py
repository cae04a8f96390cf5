"""Compare a model or an evaluation with its evidence: every file, the order of what happened, and the numbers.

    safe-sft verify outputs/my-model
    safe-sft verify evaluation --model outputs/my-model

The first file that does not match is named, with exit status 2. Who signed the evidence is checked with the package
`model-signing`; docs/evidence.md has the command.
"""

import argparse
import os

from .command import command, options
from .exits import Status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; imports nothing heavy."""
    add = parser.add_argument
    add("folder", help="what `safe-sft train`, or `safe-sft evaluate` with `--output`, wrote")
    add("--model", help="folder of the model that an evaluation must be of")
    add(
        "--accept_texts",
        action="store_true",
        help="record the texts (card, licence) that you changed or added since; all else must match",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, and say what was compared.

    Raises:
        ValueError: for the first file that does not match.
    """
    from ..evidence import accept_texts, verify
    from ..evidence.report import lines
    from ..storage.names import SIGNATURE
    from ..storage.terminal import plain

    if args.accept_texts:
        accepted = accept_texts(args.folder)
        print(plain(f"Recorded: {', '.join(accepted) or 'no text has changed'}."))
        if accepted and os.path.exists(os.path.join(args.folder, SIGNATURE)):
            print(f"{SIGNATURE} is of the record before: sign it again.")
    for line in lines(verify(args.folder, args.model)):
        print(plain(line))
    return Status.DONE


main = command("verify", options("verify", __doc__, add_arguments), run)

if __name__ == "__main__":
    raise SystemExit(main())
