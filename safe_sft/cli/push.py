"""Push a model, importance or a teacher cache to the Hub, with its card; also to push again what failed.

    safe-sft push outputs/my-model --repo me/my-model [--private]
    safe-sft push outputs/importance --repo me/my-importance

The token is that of `hf auth login` or of the environment (HF_TOKEN).
"""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; imports nothing heavy."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
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
    add("--ignore_gate", "--ignore-gate", action="store_true", help="push a model that failed its safety gate")


def run(args: argparse.Namespace) -> int:
    """Push.

    Returns:
        0, or 1 when the Hub was not reached or said no.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when it holds nothing that can be pushed.
    """
    from ..hub.push import push_folder
    from ..storage.hub import HubError

    try:
        url = push_folder(
            args.folder, args.repo, private=args.private, include=args.include, ignore_gate=args.ignore_gate
        )
    except HubError as error:
        print(f"safe-sft push: error: {error}", file=sys.stderr)
        return 1
    print(f"Pushed to {url}")
    return 0
