"""Whatever is changed, left out, added, moved or renamed in a folder is found and named; nothing else is."""

import json
import shutil
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safe_sft.cli.main import main
from safe_sft.evidence import EvidenceError, Mismatch, verify
from safe_sft.evidence.chain import MANIFEST

from .folders import held, make_evaluation, make_training, snapshot

MAKERS = {"training": make_training, "evaluation": make_evaluation}
#: Made once, and copied for each change.
PLENTY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
#: The name of the repository in a card is that of a push, and no change.
REPOSITORY = b'model="out"'


@pytest.fixture(scope="module", params=MAKERS)
def sealed(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param) / "m")


@pytest.fixture
def folder(sealed, tmp_path):
    shutil.copytree(sealed, tmp_path / "copy")
    return tmp_path / "copy"


def named(folder) -> str:
    """The path that the mismatch names; a line of the manifest is the manifest."""
    with pytest.raises(Mismatch) as found:
        verify(folder)
    assert "\n" not in str(found.value)
    return found.value.path.partition(", line")[0]


def test_what_was_sealed_verifies_and_so_does_a_copy_elsewhere(sealed, folder):
    assert verify(sealed).files == verify(folder).files == len(held(folder)) - 1


def test_verifying_changes_nothing(folder, capsys):
    before = snapshot(folder)
    for _ in range(2):
        assert main(["verify", str(folder)]) == 0
    first, second = capsys.readouterr().out.split("Head of the chain", 1)[0], snapshot(folder)
    assert first.startswith(f"{len(held(folder)) - 1} files match")
    assert second == before


@PLENTY
@given(data=st.data())
def test_a_change_of_any_byte(sealed, data):
    path = data.draw(st.sampled_from(held(sealed)))
    content = (sealed / path).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    at = content.find(REPOSITORY)
    if path == "README.md" and at + 7 <= place < at + len(REPOSITORY) - 1:
        return
    try:
        (sealed / path).write_bytes(bytes(changed))
        assert named(sealed) == path
    finally:
        (sealed / path).write_bytes(content)
    verify(sealed)


def test_every_file_that_is_cut_or_grows(sealed):
    for path in held(sealed):
        content = (sealed / path).read_bytes()
        for changed in (b"", content[:-1], content[1:], content + b"\n", content + content):
            (sealed / path).write_bytes(changed)
            assert named(sealed) == path
        (sealed / path).write_bytes(content)


def test_every_file_that_is_gone(folder):
    for path in held(folder):
        content = (folder / path).read_bytes()
        (folder / path).unlink()
        if path == "_answers.jsonl":  # which is never uploaded
            assert verify(folder).absent == (path,)
        elif path == MANIFEST:
            with pytest.raises(EvidenceError, match=r"has no evidence/manifest\.jsonl"):
                verify(folder)
        else:
            assert named(folder) == path
        (folder / path).write_bytes(content)
    verify(folder)


def test_every_file_under_another_name(folder):
    for path in held(folder)[:-1]:
        other = (folder / path).with_name(f"x-{(folder / path).name}")
        (folder / path).rename(other)
        assert named(folder) in (path, other.relative_to(folder).as_posix())
        other.rename(folder / path)


def test_any_two_files_that_change_places(folder):
    for one, other in combinations(held(folder)[:-1], 2):
        contents = [(folder / path).read_bytes() for path in (one, other)]
        (folder / one).write_bytes(contents[1])
        (folder / other).write_bytes(contents[0])
        assert named(folder) in (one, other)
        for path, content in zip((one, other), contents, strict=True):
            (folder / path).write_bytes(content)


@pytest.mark.parametrize("name", ["evidence/more.json", ".eval_results/b.yaml", "more.svg"])
def test_a_file_that_is_added(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    assert named(folder) == name


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "modeling_evil.py", "a/b/c.json", "LICENSE", "evidence2"]
)
def test_a_file_that_is_added_to_a_model(tmp_path, name):
    folder = make_training(tmp_path / "m")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("{}")
    assert named(folder) == name


def test_what_goes_on_changing_is_not_held_to(tmp_path):
    folder = make_training(tmp_path / "m")
    for name in (
        "checkpoint-3/new.json",
        "runs/events",
        "_teacher-1/p",
        ".cache/x",
        "training_args.bin",
        "evidence.sig",
    ):
        (folder / name).write_text("another")
    verify(folder)
    folder = make_evaluation(tmp_path / "e")
    for name in ("cache/rank0.jsonl", "mine.txt", "model.safetensors"):
        (folder / name).write_text("another")
    verify(folder)


def test_every_line_of_the_manifest_left_out_doubled_or_moved(folder):
    path = folder / MANIFEST
    content = path.read_text()
    lines = content.splitlines(keepends=True)
    for i in range(len(lines)):
        for changed in (lines[:i] + lines[i + 1 :], lines[: i + 1] + lines[i:], lines[:i]):
            path.write_text("".join(changed))
            assert named(folder) == MANIFEST
        for j in range(i):
            swapped = [*lines]
            swapped[i], swapped[j] = lines[j], lines[i]
            path.write_text("".join(swapped))
            assert named(folder) == MANIFEST
    path.write_text(content)


def test_every_value_of_the_manifest(folder):
    path = folder / MANIFEST
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        for key, value in json.loads(line).items():
            other = (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int) else f"{value}0"
            entry = {**json.loads(line), key: other}
            text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
            path.write_text("\n".join([*lines[:i], text, *lines[i + 1 :]]) + "\n")
            assert named(folder) == MANIFEST


def test_the_card_may_name_its_repository(tmp_path):
    folder = make_training(tmp_path / "m")
    card = folder / "README.md"
    card.write_text(card.read_text().replace('model="out"', 'model="me/m"'))
    verify(folder)
    for old, new in (("# m", "# n"), ('model="me/m"', 'model="ASR 0.000"'), ('model="me/m"', 'model="a/b/c"')):
        text = card.read_text()
        card.write_text(text.replace(old, new))
        assert named(folder) == "README.md"
        card.write_text(text)
