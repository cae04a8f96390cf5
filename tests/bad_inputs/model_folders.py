"""Folders of models and adapters that are damaged, foreign, or made to do harm, through every command that loads one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from .table import TRAIN, Bad

EVALUATE = "evaluate --model {here}/model --prompts {good}/prompts.jsonl --max_new_tokens 2"
IMPORTANCE = "importance --model {here}/model --output {here}/importance"
MERGE = "merge --aligned {good}/model --tuned {here}/model --weight 0.5 --output {here}/merged"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def _json(file: str, **changes: Any) -> Callable[[Path], None]:
    """Change keys of a JSON file in `{here}/model`; None removes one."""

    def spoil(here: Path) -> None:
        path = here / file
        content = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return spoil


def _write(file: str, content: bytes | str) -> Callable[[Path], None]:
    def spoil(here: Path) -> None:
        (here / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def _cut(file: str, keep: int) -> Callable[[Path], None]:
    return lambda here: (here / file).write_bytes((here / file).read_bytes()[:keep])


def _remove(*files: str) -> Callable[[Path], None]:
    def spoil(here: Path) -> None:
        for file in files:
            (here / file).unlink()

    return spoil


def _tensors(file: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    def spoil(here: Path) -> None:
        save_file(change(load_file(here / file)), here / file, {"format": "pt"})

    return spoil


def _pickled(here: Path) -> None:
    (here / "model" / WEIGHTS).rename(here / "model" / "pytorch_model.bin")


def _index(weight_map: Any) -> Callable[[Path], None]:
    def spoil(here: Path) -> None:
        (here / "model" / WEIGHTS).rename(here / "model" / "model-00001-of-00002.safetensors")
        (here / "model" / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return spoil


def _template(text: str) -> Callable[[Path], None]:
    return _write("model/chat_template.jinja", text)


def _first(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {**tensors, (name := sorted(tensors)[0]): change(tensors[name])}


W = f"model/{WEIGHTS}"
ANEW = "save"
#: What is wrong; how; and what every command that reads it must name and advise.
MODELS: list[tuple[str, Callable[[Path], None], str, str]] = [
    ("weights cut off", _cut(W, 5000), "{here}/model", ANEW),
    ("empty weights", _write(W, b""), "{here}/model", ANEW),
    ("garbage as weights", _write(W, b"\xff" * 4000), "{here}/model", ANEW),
    ("a header that promises too much", _write(W, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"), "{here}/model", ANEW),
    ("no weights", _remove(W), "{here}/model", ANEW),
    ("another number of layers", _json("model/config.json", num_hidden_layers=3), "{here}/model", ANEW),
    ("fewer layers", _json("model/config.json", num_hidden_layers=1), "{here}/model", ANEW),
    ("another width", _json("model/config.json", hidden_size=64), "{here}/model", ANEW),
    ("a tensor is missing", _tensors(W, lambda t: dict(sorted(t.items())[:-1])), "{here}/model", ANEW),
    ("a tensor of another shape", _tensors(W, _first(lambda t: t[:-1].clone())), "{here}/model", ANEW),
    ("config is no JSON", _write("model/config.json", "{not json"), "{here}/model", ANEW),
    ("config is a list", _write("model/config.json", "[]"), "{here}/model", ANEW),
    ("config is empty", _write("model/config.json", ""), "{here}/model", ANEW),
    ("an unknown kind of model", _json("model/config.json", model_type="llamma"), "llamma", ""),
    ("a width that is a text", _json("model/config.json", hidden_size="wide"), "{here}/model", ANEW),
    ("no config", _remove("model/config.json"), "{here}/model", ""),
    ("an index that leads out", _index({"a": "../../secret.safetensors"}), "../../secret.safetensors", "elsewhere"),
    ("an index with a path", _index({"a": "/etc/passwd"}), "/etc/passwd", "elsewhere"),
    (
        "an index of missing files",
        _index({"a": "model-00002-of-00002.safetensors"}),
        "model-00002-of-00002",
        "Complete",
    ),
    ("an index without a map", _index(None), "weight_map", ANEW),
    ("an index of numbers", _index({"a": 3}), "3", "elsewhere"),
]
LOADING = {"train": TRAIN, "evaluate": EVALUATE, "importance": IMPORTANCE, "merge": MERGE}


def _through(id: str, spoil: Callable[[Path], None], names: str, remedy: str, *commands: str) -> list[Bad]:
    fields = {"model_name_or_path": "{here}/model"}
    return [
        Bad(f"{name}: {id}", LOADING[name], names, remedy, fields=fields if name == "train" else {}, spoil=spoil)
        for name in commands
    ]


def _each(commands: tuple[str, ...]) -> list[Bad]:
    return [row for model in MODELS for row in _through(*model, *commands)]


STRICT = (
    "{%- for m in messages %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{%- endif %}{{ m.content }}{%- endfor %}"
)
TOKENIZERS = [
    *_through("no tokenizer", _remove("model/tokenizer.json", "model/tokenizer_config.json"), "{here}/model", "save the tokenizer", "train", "evaluate", "importance"),
    *_through("tokenizer is no JSON", _write("model/tokenizer.json", "{"), "{here}/model", "save the tokenizer", "train", "evaluate", "importance"),
    *_through("too small a vocabulary", _json("model/config.json", vocab_size=100), "{here}/model", ANEW, "train", "evaluate"),
    *_through("a template that raises", _template("{{ raise_exception('never') }}"), "never", "chat_template_path", "train", "evaluate"),
    *_through("a template that is no Jinja", _template("{% for %}"), "template", "chat_template_path", "train", "evaluate"),
    *_through("a template that drops what is said", _template("hello"), "drops the text", "chat_template_path", "train", "evaluate"),
    *_through("a template that loops", _template("{% for i in range(10 ** 9) %}{{ i }}{% endfor %}"), "template", "chat_template_path", "train", "evaluate"),
    *_through("a template that writes too much", _template("{{ messages[0]['content'] * 10 ** 7 }}"), "1,000,000 characters", "chat_template_path", "train", "evaluate", "importance"),
    *_through("a template that reaches for Python", _template("{{ ''.__class__.__mro__[1].__subclasses__() }}"), "template", "chat_template_path", "train", "evaluate"),
    Bad("train: rows that the template refuses", TRAIN, "Row 1", "roles must alternate",
        {"rows.jsonl": [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, {"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}]},
        {"model_name_or_path": "{here}/model", "dataset_name": "{here}/rows.jsonl", "safety_dataset_name": "{good}/safety.jsonl"}, _template(STRICT)),
]  # fmt: skip

A, ADAPTER_CONFIG = "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
ADAPTERS: list[tuple[str, Callable[[Path], None], str, str]] = [
    ("weights cut off", _cut(A, 300), "{here}/adapter", ANEW),
    ("empty weights", _write(A, b""), "{here}/adapter", ANEW),
    ("no weights", _remove(A), "{here}/adapter", ""),
    ("an unknown kind", _json(ADAPTER_CONFIG, peft_type="LORAA"), "LORAA", ANEW),
    ("no kind", _json(ADAPTER_CONFIG, peft_type=None), "{here}/adapter", ANEW),
    ("another rank", _json(ADAPTER_CONFIG, r=8), "{here}/adapter", ANEW),
    ("a rank that is a text", _json(ADAPTER_CONFIG, r="four"), "{here}/adapter", ANEW),
    ("a tensor is missing", _tensors(A, lambda t: dict(sorted(t.items())[1:])), "{here}/adapter", ANEW),
    (
        "other layers",
        _tensors(A, lambda t: {k.replace("layers.1", "layers.9"): v for k, v in t.items()}),
        "{here}/adapter",
        ANEW,
    ),
    ("modules that the base lacks", _json(ADAPTER_CONFIG, target_modules=["nowhere"]), "{here}/adapter", ANEW),
    ("config is no JSON", _write(ADAPTER_CONFIG, "{"), "{here}/adapter", ANEW),
    ("config is a list", _write(ADAPTER_CONFIG, "[]"), "{here}/adapter", ANEW),
]
USES = {
    "evaluate": "evaluate --model {good}/model --adapter {here}/adapter --prompts {good}/prompts.jsonl --max_new_tokens 2",
    "train": TRAIN,
    "merge": "merge --aligned {good}/model --tuned {here}/adapter --weight 0.5 --output {here}/merged",
}
ADAPTED = [
    Bad(f"{name} an adapter: {id}", words, names, remedy, spoil=spoil,
        fields={"adapter_name_or_path": "{here}/adapter", "use_peft": False, "lora_r": 16, "lora_target_modules": None} if name == "train" else {})
    for id, spoil, names, remedy in ADAPTERS
    for name, words in USES.items()
]  # fmt: skip

OTHERS = [
    *_through("pickled weights", _pickled, "safetensors", "save_pretrained", "merge"),
    Bad("merge: another model", MERGE, "{here}/model", "", spoil=_json("model/config.json", hidden_size=64)),
    Bad(
        "train: no architecture",
        TRAIN,
        "architectures",
        "save_pretrained",
        fields={"model_name_or_path": "{here}/model"},
        spoil=_json("model/config.json", architectures=None),
    ),
    Bad(
        "train: an adapter as the model",
        TRAIN,
        "{good}/adapter",
        "Give its base",
        fields={"model_name_or_path": "{good}/adapter"},
    ),
    Bad(
        "plan: config is no JSON",
        "plan --config {here}/recipe.yaml",
        "{here}/model",
        "",
        fields={"model_name_or_path": "{here}/model"},
        spoil=_write("model/config.json", "{"),
    ),
    Bad(
        "evaluate: an adapter without a base",
        "evaluate --model {here}/adapter",
        "does not name its base",
        "Give the base",
        spoil=_json(ADAPTER_CONFIG, base_model_name_or_path=None),
    ),
    Bad(
        "evaluate: own code",
        EVALUATE,
        "Python code of its own",
        "trust_remote_code",
        spoil=_json(
            "model/config.json",
            model_type="own",
            auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
        ),
    ),
]

ROWS = [*_each(("train", "evaluate")), *_each(("importance", "merge"))[::1], *TOKENIZERS, *ADAPTED, *OTHERS]
