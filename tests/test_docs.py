"""The documentation is true: its commands parse, its Python runs, its settings and numbers are the project's."""

import argparse
import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

import safe_sft
from safe_sft import METHODS, SafeSFTConfig
from safe_sft.cli import plan
from safe_sft.cli.main import COMMANDS
from safe_sft.cli.recipe_arguments import make_parser
from safe_sft.config.merging import MERGE_WEIGHT
from safe_sft.config.recipes import read_recipe, split_recipe
from safe_sft.merging import MERGE_METHODS
from safe_sft.merging.methods import THRESHOLD
from safe_sft.methods.listing import methods_table
from tests.conftest import make_model, make_tokenizer, task_rows
from tests.hub.server import TOKEN, FakeHub

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
METHOD_PAGES = {name: ROOT / "docs" / "methods" / f"{name}.md" for name in METHODS}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}\S.*\n?)+", re.MULTILINE)
_RATE = re.compile(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


class Command(NamedTuple):
    """A command line of a page."""

    page: Path
    words: list[str]


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of `languages`."""
    return [text for language, text in _FENCE.findall(page.read_text()) if language in languages]


def command_lines(page: Path) -> Iterator[Command]:
    """Every command of the shell blocks and the indented blocks, without its environment and its folder."""
    text = page.read_text()
    indented = _INDENTED.findall(_FENCE.sub("", text))
    for block in [*blocks(page, "bash", "sh", "shell"), *(b for b in indented if "safe-sft " in b)]:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words = words[1:]
            if words:
                yield Command(page, [words[0].removeprefix(".venv/bin/"), *words[1:]])


COMMAND_LINES = [command for page in PAGES for command in command_lines(page)]


def run_parser(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """`words`, parsed by argparse alone: no data class is made of them, nothing is loaded."""
    parser.allow_abbrev = False
    return argparse.ArgumentParser.parse_args(parser, words)


def check_safe_sft(words: list[str]) -> None:
    """Refuse what `safe-sft` would refuse."""
    name, *rest = words
    if name in ("--help", "--version"):
        return
    assert name in COMMANDS, f"there is no command `safe-sft {name}`"
    if "--help" in rest:
        return
    module = import_module(f"safe_sft.cli.{name}")
    if hasattr(module, "add_arguments"):
        parser = argparse.ArgumentParser(allow_abbrev=False)
        module.add_arguments(parser)
        run_parser(parser, rest)
    else:
        check_recipe_command(name, rest)


def check_recipe_command(name: str, words: list[str]) -> None:
    """The options are known, and so are the keys of the recipe, where it is one of ours."""
    path, rest = split_recipe(words)
    parser = make_parser(name)
    if path is not None and path.startswith("recipes/"):
        assert read_recipe(ROOT / path).keys() <= {action.dest for action in parser._actions} | {"env"}
    if name == "plan":
        _, rest = plan.options().parse_known_args(rest)
    run_parser(parser, rest)


def check_accelerate(words: list[str]) -> None:
    """The options are those of `accelerate launch`, and what is launched is one of ours."""
    assert words[0] == "launch"
    launched = run_parser(launch_command_parser(), words[1:])
    assert launched.module, "launch a module: `-m safe_sft.cli.train`"
    if launched.config_file is not None:
        assert (ROOT / launched.config_file).is_file()
    package, _, name = launched.training_script.rpartition(".")
    assert package == "safe_sft.cli"
    check_safe_sft(([] if name == "main" else [name]) + launched.training_script_args)


@pytest.mark.parametrize("command", COMMAND_LINES, ids=lambda c: f"{c.page.stem}: {' '.join(c.words)}"[:90])
def test_commands_are_accepted(command, capsys):
    program, *words = command.words
    try:
        if program == "safe-sft":
            check_safe_sft(words)
        elif program == "accelerate":
            check_accelerate(words)
        elif program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        elif words[:1] == ["-m"] and words[1].startswith("benchmarks."):
            assert (ROOT / f"{words[1].replace('.', '/')}.py").is_file()
    except SystemExit as stop:
        pytest.fail(f"{command.page.name}: {' '.join(command.words)}\n{stop}\n{capsys.readouterr().err}")
    for word in command.words:
        if word.startswith("recipes/"):
            assert (ROOT / word).is_file(), f"{command.page.name}: {word} does not exist"


def test_there_are_commands_of_every_kind():
    programs = {command.words[0] for command in COMMAND_LINES}
    assert {"safe-sft", "accelerate", "make"} <= programs
    assert {command.words[1] for command in COMMAND_LINES if command.words[0] == "safe-sft"} >= {"train", "evaluate"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page):
    for target in _LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_imports_what_there_is(page):
    for block in blocks(page, "python", "py"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("safe_sft"):
                module = import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_reference_names_what_there_is():
    names = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert {name.rpartition(".")[2] for name in names} >= set(safe_sft.__all__) - {"METHODS"}
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), f"there is no {name}"


def test_the_readme_shows_the_methods_there_are():
    assert f"\n\n{methods_table()}\n\n" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", METHODS)
def test_a_page_names_the_settings_and_defaults_of_its_method(name):
    method, defaults = METHODS[name], SafeSFTConfig.__dataclass_fields__
    rows = settings(METHOD_PAGES[name])
    assert rows.keys() == method.reads | ({"safety_weight"} if method.has_loss else set())
    for field, written in rows.items():
        default = method.default_weight if field == "safety_weight" else defaults[field].default
        if field == "teacher_divergence":
            default = method.divergence
        if default is not None:
            assert yaml.safe_load(written.strip("`")) == default, f"{name}.md says {field} is {written}"


def test_the_page_of_merging_names_its_settings_and_defaults():
    rows = settings(ROOT / "docs" / "methods" / "merging.md")
    assert rows == {
        "merge_after_training": "none",
        "merge_weight": f"{MERGE_WEIGHT} (`magmax` 1, `safemerge` 0.8)",
        "merge_base": "none",
        "merge_safe": "none",
        "merge_threshold": str(THRESHOLD),
    }
    defaults = {name: method.default for name, method in MERGE_METHODS.items()}
    assert (defaults["magmax"], defaults["safemerge"], defaults["safe_lora"]) == (1, 0.8, THRESHOLD)


def settings(page: Path) -> dict[str, str]:
    """The rows of a page's table of settings: name -> default as written."""
    section = page.read_text().split("## Settings\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))


@pytest.mark.parametrize("name", METHODS)
def test_a_page_cites_what_a_model_card_cites(name):
    assert METHODS[name].bibtex in METHOD_PAGES[name].read_text()


def test_numbers_of_the_methods_stand_where_they_were_measured():
    sources = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("concepts", "importance", "merging"))]
    measured = {rate for source in sources for rate in _RATE.findall(source.read_text())}
    quoted = {rate for page in METHOD_PAGES.values() for rate in _RATE.findall(page.read_text())}
    assert quoted
    assert quoted <= measured, f"not measured anywhere: {quoted - measured}"


@pytest.fixture
def demo_out(tmp_path, monkeypatch) -> Path:
    """A folder with what `safe-sft demo` leaves, of random weights and a few rows; the working directory."""
    make_model().save_pretrained(tmp_path / "demo_out" / "aligned")
    make_tokenizer().save_pretrained(tmp_path / "demo_out" / "aligned")
    task_rows(16).to_json(tmp_path / "demo_out" / "task.jsonl")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_example_runs(demo_out, page):
    (example,) = blocks(ROOT / page, "python")
    names = run_blocks(page, [example])
    assert names["trainer"].state.global_step > 0


def test_the_python_page_runs(demo_out):
    """From the first block to the push, against a fake Hub; in a process of its own, because that is named there."""
    script = demo_out / "page.py"
    script.write_text("\n".join(blocks(ROOT / "docs" / "python.md", "python")))
    with FakeHub() as hub:
        account = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        account["OMP_NUM_THREADS"] = "1"  # more only get in each other's way
        environment = {**os.environ, **account, "HF_HOME": str(demo_out / "home"), "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        assert {name.split("/")[1] for name in hub.repos} == {"recipe", "my-importance", "my-teacher"}
        assert "| before | after |" in hub.text(next(name for name in hub.repos if name.endswith("recipe")))
    assert (demo_out / "outputs" / "evaluation" / "report.html").is_file()


def run_blocks(page: str, texts: list[str]) -> dict:
    """Run the blocks of a page one after the other, as a reader does."""
    names: dict = {"__name__": page}
    for number, text in enumerate(texts):
        exec(compile(text, f"{page}, block {number + 1}", "exec"), names)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_stored_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            ast.parse("".join(cell["source"]))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    cells = json.loads(path.read_text())["cells"]
    names = run_blocks(path.name, ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])
    asr = {outcome.method: outcome.asr for outcome in names["outcomes"]}
    assert asr["der"].interval[1] < asr["none"].interval[0]
