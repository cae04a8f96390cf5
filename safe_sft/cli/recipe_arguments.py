"""The arguments of the commands that take a recipe."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from trl import DatasetMixtureConfig, ModelConfig, TrlParser

from ..config.recipes import read_recipe, split_recipe
from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..methods.listing import field_notes
from .exits import Parser, one_line_errors

Arguments = tuple[SafeScriptArguments, SafeSFTConfig, ModelConfig, DatasetMixtureConfig]


class RecipeParser(Parser, TrlParser):
    """TRL's argument parser, changed so that it reports an error in one line."""


def make_parser(command: str) -> TrlParser:
    """Make TRL's parser for the script, trainer, model and mixture arguments; it accepts no abbreviations."""
    types: Any = (SafeScriptArguments, SafeSFTConfig, ModelConfig, DatasetMixtureConfig)
    usage = f"safe-sft {command} [--config RECIPE] [--FIELD VALUE ...]"  # all fields would bury the rest of the help
    parser = RecipeParser(types, prog=f"safe-sft {command}", usage=usage, allow_abbrev=False)
    notes = field_notes()
    for action in parser._actions:
        if action.dest in notes:
            action.help = f"{action.help} {notes[action.dest]}"
    return parser


def parse(argv: list[str], command: str = "train") -> Arguments:
    """Parse `argv` and its recipe, with the recipes that it extends."""
    with one_line_errors(command, TypeError), tempfile.TemporaryDirectory() as folder:
        path, arguments = split_recipe(argv)
        if path is not None:  # TRL's parser takes one file
            resolved = Path(folder) / "recipe.yaml"
            resolved.write_text(yaml.safe_dump(read_recipe(path), allow_unicode=True), encoding="utf-8")
            arguments = ["--config", str(resolved), *arguments]
        return make_parser(command).parse_args_and_config(arguments)  # type: ignore[return-value]
