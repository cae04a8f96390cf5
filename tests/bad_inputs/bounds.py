"""Inputs out of all bounds: nested without end, of sizes that no model has, given twice, or in the way of an output."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .table import TRAIN, Bad

DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
PLAN = "plan --config {here}/recipe.yaml"
INIT = "init --model {here}/model --data gsm8k"


def _holds(file: str, content: str) -> Callable[[Path], None]:
    return lambda here: (here / file).write_text(content) and None


def _shape(**changes: Any) -> Callable[[Path], None]:
    def spoil(here: Path) -> None:
        path = here / "model" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


_OWN = {"model_name_or_path": "{here}/model"}

ROWS = [
    Bad("deep: the configuration of init", INIT, "config.json", "Fetch", spoil=_holds("model/config.json", DEEP)),
    Bad("deep: that of plan", PLAN, "100 deep", "Fetch", fields=_OWN, spoil=_holds("model/config.json", DEEP)),
    Bad("deep: a card", "push {here}/model --repo a/b", "safety.json", "Restore", spoil=_holds("model/safety.json", DEEP)),
    Bad("list: a card", "push {here}/model --repo a/b", "holds a list", "Restore", spoil=_holds("model/safety.json", "[]")),
    Bad("plan: no width", PLAN, "`hidden_size: 0`", "from 1 to", fields=_OWN, spoil=_shape(hidden_size=0)),
    Bad("plan: layers below none", PLAN, "`num_hidden_layers: -3`", "from 1", fields=_OWN, spoil=_shape(num_hidden_layers=-3)),
    Bad("plan: a billion layers", PLAN, "`num_hidden_layers: 1000000000`", "2000", fields=_OWN, spoil=_shape(num_hidden_layers=10**9)),
    Bad("plan: a billion words", PLAN, "`vocab_size: 1000000000`", "from 1", fields=_OWN, spoil=_shape(vocab_size=10**9)),
    Bad("plan: a billion devices", f"{PLAN} --devices 1000000000", "`--devices 1000000000`", "Give the GPUs"),
    Bad("train: how to answer, cut", TRAIN, "generation_config.json", "Fetch", fields=_OWN, spoil=_holds("model/generation_config.json", "[1")),
    Bad("train: how to answer, a list", TRAIN, "generation_config.json", "Fetch", fields=_OWN, spoil=_holds("model/generation_config.json", "[1]")),
]  # fmt: skip
