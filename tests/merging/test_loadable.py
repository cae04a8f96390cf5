"""A merge is written only of what belongs together, from files of the models' own folders, and can be loaded."""

import json
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from safe_sft.cli.main import main
from safe_sft.merging import merge
from tests.merging.helpers import saved, saved_adapter


def adapter_changed(folder, change) -> str:
    file = Path(folder) / "adapter_model.safetensors"
    save_file({key: t.contiguous() for key, t in change(load_file(file)).items()}, file, metadata={"format": "pt"})
    return folder


CHANGES = {
    "other architecture": lambda tensors: {k.replace("model.layers", "model.decoder"): t for k, t in tensors.items()},
    "half": lambda tensors: {key: t for key, t in tensors.items() if "layers.1" not in key},
    "no B": lambda tensors: {key: t for key, t in tensors.items() if "lora_B" not in key},
    "other width": lambda tensors: {key: t[:, :4] if "lora_A" in key else t for key, t in tensors.items()},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_an_adapter_that_is_none_of_the_base_is_not_merged(tmp_path, capsys, change, method):
    base = saved(tmp_path / "a")
    adapter = adapter_changed(saved_adapter(tmp_path / "t", base), change)
    sides = ["--aligned", base, "--tuned", adapter, "--method", method, "--weight", "0.5"]
    with pytest.raises(SystemExit) as end:
        main(["merge", *sides, "--output", str(tmp_path / "m")])
    said = capsys.readouterr()
    assert end.value.code == 2
    assert "Merged" not in said.out
    assert adapter in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    assert not (tmp_path / "m").exists()


def test_adapters_of_two_bases_are_not_merged(tmp_path):
    base, other = saved(tmp_path / "a"), saved(tmp_path / "b", num_hidden_layers=3)
    with pytest.raises(ValueError, match="is no adapter of"):
        merge(base, saved_adapter(tmp_path / "t", other), "linear", 0.5, tmp_path / "m")
    aligned = saved_adapter(tmp_path / "s", base)
    with pytest.raises(ValueError, match="is no adapter of"):
        merge(aligned, str(tmp_path / "t"), "linear", 0.5, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_models_that_lack_a_layer_are_not_merged(tmp_path):
    base = saved(tmp_path / "a")
    file = Path(base) / "model.safetensors"
    save_file({k: t for k, t in load_file(file).items() if "layers.1" not in k}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"incomplete: .*layers\.1"):
        merge(base, base, "linear", 0.5, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("text", [b"", b"garbage" * 9])
def test_damaged_weights_are_named(tmp_path, text):
    base, tuned = saved(tmp_path / "a"), saved(tmp_path / "t")
    (tmp_path / "t" / "model.safetensors").write_bytes(text)
    with pytest.raises(ValueError, match=r"t/model\.safetensors' cannot be read.*anew"):
        merge(base, tuned, "linear", 0.5, tmp_path / "m")


@pytest.mark.parametrize("place", ["../outside.safetensors", "absolute", "deep/../../outside.safetensors"])
def test_weights_lie_in_the_model_s_folder(tmp_path, place):
    base, tuned = saved(tmp_path / "a"), saved(tmp_path / "t")
    os.rename(tmp_path / "t" / "model.safetensors", tmp_path / "outside.safetensors")
    file = str(tmp_path / "outside.safetensors") if place == "absolute" else place
    names = dict.fromkeys(load_file(tmp_path / "outside.safetensors"), file)
    (tmp_path / "t" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ValueError, match=r"not one in its own folder"):
        merge(base, tuned, "linear", 0.5, tmp_path / "m")


@pytest.mark.parametrize("name", ["vocab.txt", "generation_config.json", "config.json", "additional_chat_templates/x"])
def test_no_file_from_elsewhere_is_copied(tmp_path, name):
    base, tuned = saved(tmp_path / "a"), saved(tmp_path / "t")
    link = tmp_path / "t" / name
    link.parent.mkdir(exist_ok=True)
    (tmp_path / "secret").write_text((tmp_path / "a" / "config.json").read_text())
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="outside of the model's folder"):
        merge(base, tuned, "linear", 0.5, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_links_of_the_hub_s_cache_are_followed(tmp_path):
    base, plain = saved(tmp_path / "a"), saved(tmp_path / "plain")
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "abc", tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in Path(plain).iterdir():
        file.rename(blobs / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"blob-{file.name}")
    merge(base, snapshot, "linear", 0.5, tmp_path / "m")
    assert (tmp_path / "m" / "tokenizer.json").is_file()
    assert not any(file.is_symlink() for file in (tmp_path / "m").iterdir())
