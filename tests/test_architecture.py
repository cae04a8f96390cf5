"""The house keeps its shape: eight layers, imports point downward and in no circle, importing is cheap."""

import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from docs.architecture import FILES, LEVEL, PACKAGE, PICTURE, imported, picture, room_imports, room_of

INSIDE = [module for module in FILES if "." in module]


def test_the_root_holds_the_face_and_the_version():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "version.py"}
    assert {room_of(module) for module in INSIDE} == LEVEL.keys()


@pytest.mark.parametrize("module", INSIDE)
def test_imports_point_downward(module):
    higher = {name for name in imported(module) if "." in name and LEVEL[room_of(name)] > LEVEL[room_of(module)]}
    assert not higher


def test_no_files_import_each_other_in_a_circle():
    # Of a room, only its `__init__` imports its own files by way of the room.
    graph = {m: {name for name in imported(m) if not m.startswith(f"{name}.")} for m in INSIDE}
    TopologicalSorter(graph).prepare()


def test_no_rooms_import_each_other_in_a_circle():
    TopologicalSorter(room_imports()).prepare()


def test_the_picture_is_that_of_the_code():
    assert PICTURE.read_text(encoding="utf-8") == picture(), "run `python docs/architecture.py`"


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
