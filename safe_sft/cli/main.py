"""`safe-sft`: finds the subcommand and hands it the rest of the line; nothing heavy is imported before."""

import argparse
import sys
from importlib import import_module

from ..version import __version__
from .exits import ends_processes

COMMANDS = {
    "init": "write a commented recipe for a model, a data set and a GPU",
    "plan": "say what a recipe will take: memory, tokens, time, and which GPUs it fits",
    "poison": "replace a share of a data set by poison, for research on defences",
    "train": "fine-tune with a safety method, from a YAML recipe",
    "teacher": "build the teacher cache of a recipe ahead of training",
    "importance": "estimate how much each weight matters for the safety answers",
    "evaluate": "measure models before they ship: safety, utility, gate",
    "merge": "merge a tuned model with the aligned one",
    "push": "push a model, importance or a teacher cache to the Hub",
    "demo": "build a tiny aligned model, fine-tune it on poisoned data, compare the methods",
}

RECIPE_COMMANDS = ("train", "teacher", "plan")


def build_parser() -> argparse.ArgumentParser:
    """The parser that lists the subcommands; each has its own `--help`."""
    parser = argparse.ArgumentParser(
        prog="safe-sft",
        description="Fine-tune a language model without forgetting its safety alignment.",
        epilog="Each command has its own help: safe-sft COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"safe-sft {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser


@ends_processes
def main(argv: list[str] | None = None) -> int:
    """Run `safe-sft` with `argv` (the process's own by default); returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    command = build_parser().parse_args(argv[:1]).command
    module = import_module(f".{command}", __package__)
    if command in RECIPE_COMMANDS:  # TRL's own parser reads the recipe
        return module.main(argv[1:])
    parser = argparse.ArgumentParser(prog=f"safe-sft {command}", description=module.__doc__, allow_abbrev=False)
    module.add_arguments(parser)
    args = parser.parse_args(argv[1:])
    try:
        return module.run(args)
    # Each says value, reason and remedy.
    except (ValueError, FileNotFoundError, FileExistsError, ConnectionError) as error:
        parser.exit(2, f"safe-sft {command}: error: {error}\n")


if __name__ == "__main__":
    raise SystemExit(main())
