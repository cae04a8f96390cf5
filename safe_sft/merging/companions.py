"""What goes with the weights of a merged model: tokenizer, templates, configuration."""

import shutil
from pathlib import Path
from typing import Any

from ..storage.writing import write_json

# What tokenizers and processors are made of, besides any `*.jinja` template.
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")
_TEMPLATES = ("*.jinja", "additional_chat_templates")
_MODEL = ("generation_config.json", "*.py", "*processor_config.json")


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy tokenizer and chat template."""
    _copy(source, target, (*_TOKENIZER, *_TEMPLATES))


def copy_model_files(source: Path, target: Path, config: dict[str, Any]) -> None:
    """Copy what a model needs besides weights and tokenizer, with `config` as its `config.json`."""
    _copy(source, target, _MODEL)
    write_json(target / "config.json", config)


def _copy(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in source.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, target / path.name, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, target / path.name)
