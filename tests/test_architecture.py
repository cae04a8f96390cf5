"""The house keeps its shape: eight layers, imports point downward and in no circle, importing is cheap."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "safe_sft"
#: Lower layers first; a file imports from its own layer or a lower one.
LAYERS = (
    {"storage", "models", "losses", "data", "version"},
    {"importance", "replay", "evaluation"},
    {"methods", "hub"},
    {"config", "merging"},
    {"trainer"},
    {"run", "demo"},
    {"planning"},
    {"cli"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@cache
def imported(module: str) -> frozenset[str]:
    """The files of the package that `module` imports, wherever in it; a name of a package counts as the package."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else source for name in names}
    return frozenset(found & FILES.keys()) - {module}


def room(module: str) -> str:
    return module.split(".")[1]


def test_the_root_holds_the_face_and_the_version():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "version.py"}
    assert {room(module) for module in FILES if "." in module} == LEVEL.keys()


@pytest.mark.parametrize("module", [module for module in FILES if "." in module])
def test_imports_point_downward(module):
    higher = {name for name in imported(module) if "." in name and LEVEL[room(name)] > LEVEL[room(module)]}
    assert not higher


def test_no_files_import_each_other_in_a_circle():
    # Of a package, only its `__init__` imports its own files.
    graph = {
        module: {name for name in imported(module) if not module.startswith(f"{name}.")}
        for module in FILES
        if "." in module
    }
    TopologicalSorter(graph).prepare()


def test_no_rooms_of_a_layer_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {name: set() for name in LEVEL}
    for module in FILES:
        if "." in module:
            graph[room(module)] |= {room(name) for name in imported(module) if "." in name} - {room(module)}
    TopologicalSorter(graph).prepare()


def test_import_is_lazy():
    code = "import sys, safe_sft; assert not {'torch', 'trl', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_resolves():
    import safe_sft

    assert set(safe_sft.__all__) == set(safe_sft._EXPORTS)
    for name in safe_sft.__all__:
        assert getattr(safe_sft, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = safe_sft.nothing


def test_documented_places_are_importable():
    code = """
from safe_sft import SafeSFTTrainer, SafetyEvalCallback
from safe_sft.config import SafeSFTConfig
from safe_sft.trainer import SafeSFTTrainer as of_the_room
from safe_sft.callbacks import SafetyEvalCallback as of_the_alias
import safe_sft.callbacks, safe_sft.losses, safe_sft.merging, safe_sft.methods, safe_sft.evaluation, safe_sft.data
assert of_the_room is SafeSFTTrainer and of_the_alias is SafetyEvalCallback
assert safe_sft.callbacks.SafetyEvalCallback is SafetyEvalCallback
"""
    subprocess.run([sys.executable, "-c", code], check=True)
