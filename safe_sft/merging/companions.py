"""Copies what a merged model needs besides weights: tokenizer, templates, configuration."""

import shutil
from pathlib import Path
from typing import Any

from ..models.folders import MODEL_CONFIG, MODEL_FILES, TOKENIZER_FILES
from ..models.opening import own_file
from ..storage.writing import write_json


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy tokenizer and chat template."""
    _copy(source, target, TOKENIZER_FILES)


def copy_model_files(source: Path, target: Path, config: dict[str, Any]) -> None:
    """Copy what a model needs besides weights and tokenizer, with `config` as its `config.json`."""
    _copy(source, target, MODEL_FILES)
    write_json(target / MODEL_CONFIG, config)


def _copy(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in source.glob(pattern):
            for file in (path, *path.rglob("*")):
                own_file(source, file)
            if path.is_dir():
                shutil.copytree(path, target / path.name, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, target / path.name)
