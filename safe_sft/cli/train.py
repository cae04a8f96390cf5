"""Fine-tune with a safety method, from a YAML recipe.

    safe-sft train --config recipes/tiny/der.yaml [--field value …]
    accelerate launch -m safe_sft.cli.train --config recipes/tiny/der.yaml

The arguments are those of `trl sft`, those of `SafeSFTConfig`, and the safety data below.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from trl import DatasetMixtureConfig, ModelConfig, TrlParser

from ..arguments import SafeScriptArguments
from ..config import SafeSFTConfig
from ..recipes import read_recipe, resolved_recipe, split_recipe
from .processes import ends_processes

Arguments = tuple[SafeScriptArguments, SafeSFTConfig, ModelConfig, DatasetMixtureConfig]


def make_parser(command: str) -> TrlParser:
    """TRL's parser over the script, trainer, model and mixture arguments; abbreviations are not accepted."""
    types: Any = (SafeScriptArguments, SafeSFTConfig, ModelConfig, DatasetMixtureConfig)
    usage = f"safe-sft {command} [--config RECIPE] [--FIELD VALUE ...]"  # all fields would bury an error
    return TrlParser(types, prog=f"safe-sft {command}", usage=usage, allow_abbrev=False)


@contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """What is wrong with a recipe, its data or its model is one line and exit status 2."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        print(f"safe-sft {command}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def parse(argv: list[str], command: str = "train") -> Arguments:
    """Read `argv` and its recipe, with what that extends."""
    with one_line_errors(command), tempfile.TemporaryDirectory() as folder:
        path, arguments = split_recipe(argv)
        if path is not None:  # TRL's parser takes one file
            resolved = Path(folder) / "recipe.yaml"
            resolved.write_text(yaml.safe_dump(read_recipe(path), allow_unicode=True), encoding="utf-8")
            arguments = ["--config", str(resolved), *arguments]
        return make_parser(command).parse_args_and_config(arguments)  # type: ignore[return-value]


@ends_processes
def main(argv: list[str] | None = None) -> int:
    """Entry point, also of `python -m safe_sft.cli.train`; returns the exit status."""
    from ..remote import HubError
    from ..training import PushRefused, build_trainer, require_checkpoint, train

    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    with one_line_errors("train"):
        require_checkpoint(arguments[1])
        trainer = build_trainer(*arguments)
    try:
        train(trainer, arguments[0], resolved_recipe(argv))
    except (HubError, PushRefused) as error:  # the model is saved
        print(f"safe-sft train: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
