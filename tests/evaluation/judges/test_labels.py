"""Judges measured by answers that people have labelled."""

import json

import pytest

from safe_sft.cli.main import main
from safe_sft.evaluation.judges import Verdict
from safe_sft.evaluation.judges.labels import JudgeAccuracy, LabelledAnswers
from tests.evaluation.helpers import LETTERS

REFUSAL, HELP = "I cannot help with that.", "Sure, here is how it goes: first do this."


def accuracy(verdicts: str, labels: str) -> JudgeAccuracy:
    return JudgeAccuracy("j", tuple(LETTERS[v] for v in verdicts), tuple(label == "h" for label in labels))


def test_the_numbers_by_hand():
    # 3 of 4 harmful answers are found, 1 of 6 harmless ones is accused: 8 of 10 right; by chance (4·4 + 6·6)/100.
    found = accuracy("cccrcrrrrs", "hhhh......")
    assert found.agreement.rate == (8, 10)
    assert found.false_positives == (1, 6)
    assert found.false_negatives == (1, 4)
    assert found.agreement.kappa == pytest.approx((0.8 - 0.52) / (1 - 0.52))
    assert found.agreement.disagreements == (3, 4)
    assert found.left_out == (0, 10)


def test_what_has_no_verdict_is_left_out_and_counted():
    found = accuracy("cruudr", "h.h.hh")
    assert found.left_out == (3, 6)
    assert (found.agreement.rate, found.false_positives, found.false_negatives) == ((2, 3), (0, 1), (1, 2))


def test_kappa_is_undefined_with_one_kind_alone():
    assert accuracy("cc", "hh").as_dict()["kappa"] is None
    assert accuracy("cc", "hh").false_positives == (0, 0)


WORDS = {"complied": True, "Unsafe": True, "1": True, "refused": False, "benign": False, "0": False, "false": False}


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_labels_are_words_or_truth_values(tmp_path, suffix):
    path = tmp_path / f"l.{suffix}"
    if suffix == "csv":
        path.write_text("request,answer,label\n" + "".join(f'r,"a, b",{word}\n' for word in WORDS))
    else:
        path.write_text("".join(json.dumps({"request": "r", "answer": "a", "label": word}) + "\n" for word in WORDS))
    assert LabelledAnswers.read(str(path)).labels == tuple(WORDS.values())
    path.write_text('{"request": "r", "answer": "a", "label": true}\n' if suffix == "jsonl" else path.read_text())
    assert LabelledAnswers.read(str(path)).labels[0] is True


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"request": "r", "answer": "a"}], r"It needs `request` and `answer` and `label`"),
        ([{"request": "r", "answer": "a", "label": "1"}, {"request": "r", "answer": "", "label": "1"}], "Row 1 of"),
        ([{"request": "r", "answer": "a", "label": "1"}, {"request": None, "answer": "a", "label": "1"}], "Row 1 of"),
        ([{"request": "r", "answer": "a", "label": "perhaps"}], r"Row 0 of .* has the label 'perhaps'"),
        ([{"request": "r", "answer": "a", "label": None}], r"Row 0 of .* has the label None"),
    ],
    ids=["no label", "empty answer", "no request", "unknown label", "null label"],
)
def test_bad_rows_are_named(tmp_path, rows, message):
    path = tmp_path / "l.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=message):
        LabelledAnswers.read(str(path))


def test_from_the_command_line(tmp_path, capsys):
    rows = [(REFUSAL, "refused"), (HELP, "complied"), (REFUSAL, "complied"), ("no no " * 20, "refused")]
    rows.append(("<think>Shall I?</think> " + REFUSAL, "refused"))
    path = tmp_path / "l.jsonl"
    path.write_text("".join(json.dumps({"request": "r", "answer": a, "label": b}) + "\n" for a, b in rows))
    arguments = ["--judge", "refusal_phrases", "--labels", str(path), "--output", str(tmp_path / "out")]
    assert main(["evaluate", *arguments]) == 0
    text = capsys.readouterr().out
    assert "0.750" in text
    assert "1 of 5" in text
    assert "2 answers labelled harmful, 3 not" in text
    (said,) = json.loads((tmp_path / "out" / "judges.json").read_text())["judges"]
    assert (said["accuracy"]["successes"], said["accuracy"]["n"]) == (3, 4)
    assert said["disagreements"] == [
        {"row": 2, "request": "r", "answer": REFUSAL, "label": True, "verdict": Verdict.REFUSED.value}
    ]


def test_a_model_is_not_measured_at_the_same_time(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", "m", "--labels", "l.jsonl"])
    assert "Run the two apart" in capsys.readouterr().err
