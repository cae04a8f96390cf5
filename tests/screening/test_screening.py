"""A screening as a whole: the same scores however it is run, kept on disk, and shown without any power of the rows."""

import json
import re
from collections.abc import Sequence

import pytest
import torch
from datasets import load_dataset
from rich.console import Console

from safe_sft.evaluation.judges import Judge, RefusalPhrases, Verdict
from safe_sft.screening import Settings
from safe_sft.screening import screener as module
from safe_sft.screening.output import page, print_screening, sentences, write_part, write_screening
from safe_sft.screening.screening import NO_PROOF
from tests.conftest import lora, make_model, make_tokenizer
from tests.screening.helpers import rows, screened, screener


def scores(found):
    return [score.score for _, score in found.spool]


def test_scores_do_not_depend_on_batches(tmp_path):
    one = screened(tmp_path / "a", settings=Settings(400, 1))
    many = screened(tmp_path / "b", settings=Settings(400, 16))
    assert scores(one) == pytest.approx(scores(many), abs=1e-3)
    assert [row for row, _ in one.spool] == rows()
    assert [score.index for _, score in one.spool] == list(range(40))


def test_streamed_rows_are_read_once_and_scored_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_ROWS", 16)
    known = screened(tmp_path / "a")
    passes = []

    class Stream:
        def __iter__(self):
            passes.append(1)
            yield from rows()

    streamed = screened(tmp_path / "b", Stream())
    assert passes == [1]
    assert scores(streamed) == scores(known)


def test_a_screening_that_was_stopped_goes_on_with_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_ROWS", 16)
    first = screened(tmp_path)
    parts = sorted((tmp_path / "cache").glob("part-*.jsonl"))
    assert len(parts) == 3
    parts[1].unlink()
    asked = []
    read = module.Reader.read
    monkeypatch.setattr(module.Reader, "read", lambda self, some: (asked.append(len(some)), read(self, some))[1])
    again = screened(tmp_path)
    assert scores(again) == scores(first)
    assert len(asked) == 2  # the requests that rows are compared with, and one part
    assert asked[1] in (16, 8)


def changed_model():
    model = make_model()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 0.1
    return model


def adapted_model():
    from peft import get_peft_model

    model = get_peft_model(make_model(), lora())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.01)
    return model


def other_template():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template + "{# another #}"
    return tokenizer


@pytest.mark.parametrize(
    "other",
    [
        {"model": changed_model},
        {"model": adapted_model},
        {"tokenizer": other_template},
        {"settings": lambda: Settings(399, 8)},
        {"safety": lambda: [f"another request {i}" for i in range(24)]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_scores_are_kept_under_all_that_they_depend_on(tmp_path, other):
    digests = [screener(tmp_path, **options)._parts.digest for options in ({}, {n: f() for n, f in other.items()}, {})]
    assert digests[0] == digests[2] != digests[1]


def test_of_a_conversation_the_worst_answer_counts(tmp_path):
    turns = [("user", "a"), ("assistant", "b"), ("user", "what else is there?"), ("assistant", "d")]
    messages = [{"role": role, "content": text} for role, text in turns]
    found = screened(tmp_path, [{"messages": messages[:2]}, {"messages": messages}])
    alone, both = (score for _, score in found.spool)
    assert both.score >= alone.score
    assert both.turn == (0 if both.score == pytest.approx(alone.score, abs=1e-4) else 1)


def test_rows_without_room_are_said_to_be_unscored(tmp_path):
    found = screened(tmp_path, [*rows(), {"prompt": "x" * 500, "completion": "y"}])
    assert found.unscored == 1
    assert not found.is_flagged(list(found.spool)[-1][1])
    assert any("1 rows have no score" in sentence for sentence in sentences(found))
    assert found.rows == 41


def test_kept_and_dropped_rows_are_all_rows_as_they_were(tmp_path):
    plain = [{"prompt": f"colour {i}?", "completion": f"red {i}", "note": i} for i in range(40)]
    middle = sorted(scores(screened(tmp_path / "a", plain)))[30]
    found = screened(tmp_path / "b", plain, threshold=middle)
    counts = [
        write_part(found, tmp_path / f"{name}.jsonl", flagged=flagged, folder=tmp_path)
        for name, flagged in (("keep", False), ("drop", True))
    ]
    assert counts == [30, 10]
    texts = [(tmp_path / f"{name}.jsonl").read_text() for name in ("keep", "drop")]
    written = [json.loads(line) for text in texts for line in text.splitlines()]
    assert sorted(written, key=lambda row: row["note"]) == plain
    assert sum(row["note"] in found.scores.flagged(middle) for row in written[30:]) == 10
    assert not list(tmp_path.glob(".rows-*"))


def test_a_part_without_rows_is_an_error(tmp_path):
    found = screened(tmp_path, threshold=1e6)
    with pytest.raises(ValueError, match="None of the 40 rows is flagged"):
        write_part(found, tmp_path / "drop.jsonl", flagged=True, folder=tmp_path)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_rows_are_written_with_their_scores(tmp_path, form):
    found = screened(tmp_path, [row for row in rows() if isinstance(row["prompt"], str)])
    write_screening(found, tmp_path / "out", form)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html",
        f"scores.{form}",
        "screening.json",
    ]
    kind = {"jsonl": "json"}.get(form, form)
    written = load_dataset(kind, data_files=str(tmp_path / "out" / f"scores.{form}"), split="train")
    assert written["screen_score"] == pytest.approx(scores(found))
    assert written["prompt"] == [row["prompt"] for row, _ in found.spool]
    said = json.loads((tmp_path / "out" / "screening.json").read_text())
    assert said["note"] == NO_PROOF
    assert said["flagged"]["n"] == 20
    assert said["threshold"]["expected_false_positives"]["estimate"] is None  # of 20 rows, nothing is known


def test_texts_have_no_power(tmp_path):
    evil = '<script>alert(1)</script><img src=x onerror="x"> [bold]{{ 7 * 7 }}\x1b[31m'
    found = screened(tmp_path, [*rows(), {"prompt": evil, "completion": evil}], threshold=-1e6)
    text = page(found)
    assert "<script>" not in text
    assert 'onerror="' not in text
    assert "&lt;script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    console = Console(record=True, width=300)
    print_screening(found, console)
    assert "\x1b[31m" not in (said := console.export_text())
    assert "not shown to be clean" in said


def test_nothing_is_said_to_be_clean(tmp_path):
    text = page(screened(tmp_path, threshold=1e6))
    assert NO_PROOF in text
    assert "as an estimate" in text
    assert not re.search(r"(?i)\b(is|are) clean\b|\bsafe to\b|\bpassed\b", text.replace("not shown to be clean", ""))


class OfWords(Judge):
    """Says that an answer refuses where it holds a word."""

    name = "words"

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        return [Verdict.REFUSED if "blue" in answer else Verdict.COMPLIED for answer in answers]


def test_an_answer_that_a_judge_says_refuses_is_not_flagged(tmp_path):
    found = screened(tmp_path, threshold=-1e6, judges=[OfWords(), RefusalPhrases()])
    for row, score in found.spool:
        blue = "blue" in str(row["completion"])
        assert score.verdicts["words"] == ("refused" if blue else "complied")
        assert found.is_flagged(score) is not blue
    assert (
        found.flagged.successes == 40 - len(found.cleared) == sum("blue" not in str(r["completion"]) for r in rows())
    )


def test_rows_that_are_trusted_are_not_flagged(tmp_path):
    marked = [{**row, "mine": place == 3} for place, row in enumerate(rows())]
    assert screened(tmp_path, marked, threshold=-1e6, trusted="mine").flagged.successes == 39


def test_clean_rows_tell_the_false_positives(tmp_path):
    found = screened(tmp_path, clean=rows(30))
    assert "rows that are said to be clean" in found.threshold.false_positives.basis
    assert found.threshold.false_positives.high > 0


def test_no_rows_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="has no rows"):
        screened(tmp_path, [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": None}, "Row 1 of 'rows.jsonl': `completion` is empty"),
        ({"prompt": "a", "completion": " "}, "`completion` is empty"),
        ({"messages": [{"role": "user", "content": "a"}]}, "has no answer"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "has no request before its answer"),
        ({"prompt": "a", "completion": "b", "images": [1]}, "has images"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        screened(tmp_path, [rows()[0], row])
