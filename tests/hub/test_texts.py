"""Names and data of others cannot leave their place in a card."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from safe_sft.hub.facts import RunFacts, SafetyRowsFacts, Term
from safe_sft.hub.merge_card import write_record
from safe_sft.hub.templates import cell, code, fenced
from safe_sft.storage.quick_start import with_repository
from tests.hub.test_card import card

NASTY = [
    "a | b",
    "<script>alert(1)</script>",
    "x\n---\nlicense: mit\n---\n# Mine",
    "```\n~~~\n</details># Mine",
    "`tick` ``two``",
    "[click](http://evil)![i](http://evil)",
    "**bold** \x1b[31m",
    "| --- |\n&lt;b>",
]
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


def html(text):
    return MARKDOWN.render(text)


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_is_text(text):
    made = html(f"| h |\n|---|\n| {cell(text)} |\n")
    assert made.count("<td>") == 1
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td)\b)", made)


@pytest.mark.parametrize("text", NASTY)
def test_a_span_and_a_block_are_code(text):
    assert len(re.findall("<(?!/?(?:p|code)>)", html(f"x {code(text)} y"))) == 0
    assert html(fenced(text, "yaml")).count("<pre>") == 1
    assert html(fenced(text, "yaml")).rstrip().endswith("</code></pre>")


@pytest.mark.parametrize("text", NASTY)
def test_a_model_card(text):
    facts = RunFacts(
        "der",
        (Term("der", 0.5),),
        safety_rows=SafetyRowsFacts(text, 3, "d"),
        data={"source": text},
        recipe={"output_dir": text, "seed": 1},
        versions={"safe_sft": "0.1.0"},
    )
    made = card(facts)
    front = yaml.safe_load(made.content.split("---\n")[1])
    assert "license" not in front
    body = html(made.text)
    assert "<script>" not in body
    assert 'href="http://evil"' not in body
    assert 'src="i"' not in body
    recipe = re.search(r'<code class="language-yaml">(.*?)</code>', body, re.DOTALL)
    assert recipe is not None
    assert [line for line in body.splitlines() if line.startswith("<h1>")] == ["<h1>m</h1>"]


@pytest.mark.parametrize("text", NASTY)
def test_a_merge_card(tmp_path, text):
    sides = {"aligned": text, "tuned": text}
    record = {**sides, "method": "linear", "weight": {text: 0.5}, "revisions": sides}
    write_record(tmp_path, record, "peft")
    assert json.loads((tmp_path / "merge_config.json").read_text())["tuned"] == text
    made = ModelCard.load(tmp_path / "README.md")
    assert made.data.to_dict()["base_model"] == [text, text]
    assert "license" not in made.data.to_dict()
    body = html(made.text)
    assert "<script>" not in body
    assert body.count("<h1>") == 1
    assert body.count("<pre>") == 1


def test_a_quick_start_names_the_repository():
    made = card().content
    assert 'model="me/m"' in made
    once = with_repository(made, 'a"b')
    assert r'model="a\"b"' in once
    assert with_repository(once, "me/m") == made
