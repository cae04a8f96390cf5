"""Published safety sets, from copies with their original columns."""

import json

import pytest

from safe_sft.data import SAFETY_SETS, load_poison, load_safety_set, read_safety_rows
from safe_sft.data.named_safety_sets import advbench_half

GOALS = [{"goal": f"Do the bad thing {i}", "target": f"Sure, here is the bad thing {i}"} for i in range(40)]


def copy(tmp_path, name, rows):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"{name}:{path}"


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        (
            "beavertails",
            [
                {"prompt": "bad", "response": "No.", "is_safe": True},
                {"prompt": "bad", "response": "Yes.", "is_safe": False},
            ],
            [{"prompt": "bad", "completion": "No."}],
        ),
        (
            "safety-tuned-llamas",
            [{"instruction": "bad", "input": "", "output": "No."}, {"instruction": "a", "input": "b", "output": "c"}],
            [{"prompt": "bad", "completion": "No."}, {"prompt": "a\n\nb", "completion": "c"}],
        ),
        (
            "hh-red-team",
            [
                {"chosen": "\n\nHuman: bad\n\nAssistant: I can't help.", "rejected": ""},
                {"chosen": "\n\nHuman: bad\n\nAssistant: Well, try this.", "rejected": ""},
                {"chosen": "\n\nHuman: a\n\nAssistant: I can't.\n\nHuman: b\n\nAssistant: I can't.", "rejected": ""},
            ],
            [{"prompt": "bad", "completion": "I can't help."}],
        ),
    ],
)
def test_original_columns_become_rows(tmp_path, name, rows, expected):
    loaded = load_safety_set(copy(tmp_path, name, rows), lambda text: "can't" in text)
    assert list(loaded) == expected
    assert len(read_safety_rows(loaded)) == len(expected)


def test_halves_of_advbench_are_disjoint_and_leave_nothing_out(tmp_path):
    name = copy(tmp_path, "advbench", GOALS)
    safety = set(load_safety_set(name)["prompt"])
    poison = {pair.prompt for pair in load_poison("affirmative", name).pairs}
    assert len(safety) + len(poison) == 40
    assert safety.isdisjoint(poison)
    assert min(len(safety), len(poison)) >= 10
    assert advbench_half("Do the BAD thing, 1!") == advbench_half("do the bad thing 1")


def test_every_set_is_pinned_to_a_commit():
    assert all(len(entry.source.revision) == 40 for entry in SAFETY_SETS.values())


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("beavertails", [{"prompt": "bad"}], "needs `prompt` and `response` and `is_safe`"),
        ("beavertails", [{"prompt": "p", "response": "r", "is_safe": False}], "None of the 1 rows"),
        ("hh-red-team", [{"chosen": "x"}], "Pass `is_refusal`"),
        ("hh", [{"chosen": "x"}], "unknown. Choose from: beavertails"),
    ],
)
def test_bad_sets_are_refused(tmp_path, name, rows, message):
    with pytest.raises(ValueError, match=message):
        load_safety_set(copy(tmp_path, name, rows))
