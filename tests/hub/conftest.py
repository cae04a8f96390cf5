"""A fake Hub, and a way to run code in a process that talks to it."""

import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from tests.conftest import status_of

from .server import TOKEN, FakeHub


@pytest.fixture
def hub():
    with FakeHub() as server:
        yield server


@pytest.fixture
def run_at(hub, tmp_path):
    """`safe-sft …`, or `python -c …`, against the fake Hub; fails if the token shows in what it prints."""

    def run(*arguments: str, token: str = TOKEN, code: str | None = None) -> subprocess.CompletedProcess:
        command = [sys.executable, *(["-c", code] if code else ["-m", "safe_sft.cli.main"]), *arguments]
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))},
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": token,
            "HF_HOME": str(tmp_path / "hf-home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert token not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def run_here(hub, monkeypatch, capsys):
    """`safe-sft …` against the fake Hub, in the test's own process."""
    for name, value in (("ENDPOINT", hub.url), ("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True)):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # it keeps its first address

    def run(*arguments: str, token: str = TOKEN) -> SimpleNamespace:
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setenv("COLUMNS", "200")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)  # of httpx, to huggingface_hub
            status = status_of([*arguments])
        said = capsys.readouterr()
        assert token not in said.out + said.err
        return SimpleNamespace(returncode=status, stdout=said.out, stderr=said.err)

    return run
