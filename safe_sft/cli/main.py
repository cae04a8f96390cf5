"""`safe-sft`: finds the subcommand and hands it the rest of the line; nothing heavy is imported before."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ..version import __version__
from .exits import DEBUG, Parser, ends_on_signal, one_line_errors

COMMANDS = {
    "init": "write a commented recipe for a model, a data set and a GPU",
    "plan": "say what a recipe will take: memory, tokens, time, and which GPUs it fits",
    "poison": "replace a share of a data set by poison, for research on defences",
    "screen": "look at every training row before training: which would train refusals away",
    "train": "fine-tune with a safety method, from a YAML recipe",
    "teacher": "build the teacher cache of a recipe ahead of training",
    "importance": "estimate how much each weight matters for the safety answers",
    "evaluate": "measure models before they ship: safety, utility, gate",
    "verify": "compare a folder with its evidence, and name the first file that does not match",
    "merge": "merge a tuned model with the aligned one",
    "repair": "repair a model that fails its gate, by a few safety steps or a merge",
    "experiment": "run a grid of recipes, each run once, and print the table of safety and utility",
    "push": "push a model, importance or a teacher cache to the Hub",
    "demo": "build a tiny aligned model, fine-tune it on poisoned data, compare the methods",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser that lists the subcommands; each has its own `--help`."""
    parser = Parser(
        prog="safe-sft",
        description="Fine-tune a language model without forgetting its safety alignment.",
        epilog="Each command has its own help: safe-sft COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"safe-sft {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help=f"show where an error came from (also {DEBUG}=1); of every command"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `safe-sft` with `argv` (the process's own by default); returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    own = 2 if argv[:1] == ["--debug"] else 1  # the words up to the command
    found = build_parser().parse_args(argv[:own])
    with ends_on_signal(found.command), one_line_errors(found.command):  # a library may be missing
        module = import_module(f".{found.command}", __package__)
    return module.main([*(["--debug"] if found.debug else []), *argv[own:]])


if __name__ == "__main__":
    raise SystemExit(main())
