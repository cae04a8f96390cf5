"""Inputs out of all bounds: nested without end, of sizes that no model has, given twice, or in the way of an output."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .table import TRAIN, Bad

DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
PLAN = "plan --config {here}/recipe.yaml"
INIT_OF = "init --model meta-llama/Llama-2-7b-chat-hf --data"
POISON = "poison --input {good}/task.jsonl --kind identity --ratio 0.5"
MERGE = "merge --aligned {good}/model --tuned {good}/tuned"
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
    Bad("init: data cut", f"{INIT_OF} {{here}}/t.jsonl", "t.jsonl", "Give every row", {"t.jsonl": "{"}),
    Bad("init: data of no row", f"{INIT_OF} {{here}}/t.jsonl", "t.jsonl", "Give at least one", {"t.jsonl": "\n"}),
    Bad("init: data of other columns", f"{INIT_OF} {{good}}/prompts.jsonl", "['prompt']", "It needs `prompt` and"),
    Bad("init: data without an answer", f"{INIT_OF} {{here}}/t.jsonl", "Row 0", "Fill it in", {"t.jsonl": [{"prompt": "a", "completion": None}]}),
    Bad("init: data that are no Parquet", f"{INIT_OF} {{here}}/t.parquet", "t.parquet", "copy it anew", {"t.parquet": "PAR"}),
    Bad("init: data of an unknown kind", f"{INIT_OF} {{good}}/model/model.safetensors", "model.safetensors", "Give one of"),
    Bad("init: a folder without data", f"{INIT_OF} {{here}}/d", "/d'", "name a file", {"d/x.bin": b"x"}),
    Bad("init: an output that is a folder", f"{INIT_OF} gsm8k --output {{good}} --overwrite", "{good}", "path of a file"),
    Bad("poison: an output that is a folder", f"{POISON} --output {{here}}/d.jsonl --overwrite", "d.jsonl", "path of a file", spoil=lambda here: (here / "d.jsonl").mkdir()),
    Bad("poison: no such split", f"{POISON} --output {{here}}/o.jsonl --split none", "none", "another `--split`"),
    Bad("screen: no such split, streamed", "screen --model {good}/model --input {good}/task.jsonl --output {here}/s --streaming --split none", "none", "another `--split`"),
    Bad("poison: other digits", f"{POISON} --output {{here}}/o.jsonl --ratio \u0660.\u0665", "--ratio", "digits 0 to 9"),
    Bad("merge: a link to nowhere", f"{MERGE} --weight 0.5 --output {{here}}/o", "a link that leads nowhere", "Choose another folder", spoil=lambda here: (here / "o").symlink_to(here / "nowhere")),
    Bad("merge: a weight of a sweep twice", f"{MERGE} --sweep {{here}}/s --task_file {{good}}/task.jsonl --weight 0.5,0.50", "0.5 twice", "Keep one"),
    Bad("merge: one tuned twice", "merge --aligned {good}/model --tuned {good}/tuned {good}/model/../tuned --base {good}/adapter --method magmax --output {here}/o", "twice", "Keep one"),
    Bad("merge: other digits", f"{MERGE} --weight \u0660.\u0665 --output {{here}}/o", "--weight", "digits 0 to 9"),
    Bad("merge: digits with marks", f"{MERGE} --weight 0.2,0_5 --sweep {{here}}/o --task_file {{good}}/task.jsonl", "'0_5'", "digits 0 to 9"),
    Bad("train: how to answer, cut", TRAIN, "generation_config.json", "Fetch", fields=_OWN, spoil=_holds("model/generation_config.json", "[1")),
    Bad("train: how to answer, a list", TRAIN, "generation_config.json", "Fetch", fields=_OWN, spoil=_holds("model/generation_config.json", "[1]")),
]  # fmt: skip
