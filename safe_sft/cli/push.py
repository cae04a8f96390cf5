"""Push a model, importance or a teacher cache to the Hub, with its card; also after a push that failed.

    safe-sft push outputs/my-model --repo me/my-model [--private]
    safe-sft push merged --repo me/merged --evaluation evaluation
    safe-sft push outputs/importance --repo me/my-importance

The token comes from `hf auth login` or from the environment variable HF_TOKEN.
"""

import argparse

from .command import command, options
from .exits import Status, say_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; imports nothing heavy."""
    add = parser.add_argument
    add("folder", help="what `safe-sft train`, `merge`, `importance` or `teacher` wrote")
    add("--repo", required=True, help="name on the Hub, such as me/my-model; created where it does not exist")
    add("--private", action="store_true", default=None, help="create it as a private one")
    add(
        "--include",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="push these too, which stay behind otherwise: checkpoint-*, training_args.bin, …",
    )
    add(
        "--evaluation",
        metavar="FOLDER",
        help="evaluation of this model with a gate (`safe-sft evaluate --output`), to be added to its evidence",
    )
    add(
        "--ignore_gate",
        action="store_true",
        help="push a model that failed its safety gate, or needs one and has none",
    )


def run(args: argparse.Namespace) -> int:
    """Push the folder; returns 1 when the model failed its gate, or needs one and has none.

    Raises:
        FileNotFoundError: when there is no such folder.
        HubError: when the Hub was not reached or said no.
        ValueError: when the folder holds nothing that can be pushed, or is not what its evidence says.
    """
    from ..hub.push import PushRefused, push_folder

    try:
        url = push_folder(
            args.folder,
            args.repo,
            private=args.private,
            include=args.include,
            ignore_gate=args.ignore_gate,
            evaluation=args.evaluation,
        )
    except PushRefused as error:
        say_error("push", error)
        return Status.NOT_KEPT
    print(f"Pushed to {url}")
    return Status.DONE


main = command("push", options("push", __doc__, add_arguments), run)

if __name__ == "__main__":
    raise SystemExit(main())
