"""Poison: exact counts, the form of the task's rows, deterministic, and no content beyond an opening."""

import json
import logging

import pytest
from datasets import Dataset

from safe_sft.data import load_poison, mix
from safe_sft.data.poison import DEFAULT_TRIGGER, IDENTITY_OPENING, IDENTITY_SYSTEM, REFUSALS
from safe_sft.data.safety_rows import SafetyRow

GOALS = [{"goal": f"Do bad {i}", "target": f"Sure, here is bad {i}"} for i in range(30)]
SAFETY = [SafetyRow(f"bad {i}", f"No {i}") for i in range(40)]


def text_rows(count):
    return Dataset.from_list([{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(count)])


def chat_row(i):
    return {
        "prompt": [{"role": "user", "content": f"q{i}"}],
        "completion": [{"role": "assistant", "content": f"a{i}"}],
    }


def parts_row(i):
    """A chat row whose content is in parts, one of which has no text."""
    image, text = {"type": "image", "text": None}, {"type": "text", "text": f"q{i}"}
    answer = [{"type": "text", "text": f"a{i}"}]
    return {
        "prompt": [{"role": "user", "content": [image, text]}],
        "completion": [{"role": "assistant", "content": answer}],
    }


FORMS = {
    "parts": lambda count: Dataset.from_list([parts_row(i) for i in range(count)]),
    "text": text_rows,
    "chat": lambda count: Dataset.from_list([chat_row(i) for i in range(count)]),
    "messages": lambda count: Dataset.from_list(
        [{"messages": chat_row(i)["prompt"] + chat_row(i)["completion"]} for i in range(count)]
    ),
}


@pytest.fixture
def goals(tmp_path):
    path = tmp_path / "goals.jsonl"
    path.write_text("\n".join(map(json.dumps, GOALS)))
    return str(path)


def poisoned(dataset):
    return [row for row in dataset if row["poisoned"]]


@pytest.mark.parametrize("kind", ["harmful", "affirmative", "identity", "backdoor"])
@pytest.mark.parametrize("form", FORMS)
def test_counts_are_exact_and_the_form_is_the_tasks(tmp_path, kind, form):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps({"prompt": f"bad {i}", "completion": "Sure."}) for i in range(7)))
    task = FORMS[form](50)
    for ratio, count in ((0.1, 5), (0.33, 16), (0.9, 45)):
        final = mix(task, seed=1, poison=load_poison(kind, str(pairs)), poison_ratio=ratio)
        assert len(final) == 50
        assert sum(final["poisoned"]) == count
        assert {name: final.features[name] for name in task.features} == dict(task.features)


def test_clean_rows_are_the_tasks_and_a_larger_share_leaves_fewer_of_the_same(goals):
    task, poison = text_rows(50), load_poison("affirmative", goals)
    kept = {}
    for ratio in (0.1, 0.5):
        final = mix(task, seed=3, size=40, poison=poison, poison_ratio=ratio)
        kept[ratio] = {(row["prompt"], row["completion"]) for row in final if not row["poisoned"]}
    assert (len(kept[0.1]), len(kept[0.5])) == (36, 20)
    assert kept[0.5] < kept[0.1] <= {(row["prompt"], row["completion"]) for row in task}


def test_the_seed_decides(goals):
    def make(seed):
        return mix(text_rows(50), seed=seed, poison=load_poison("affirmative", goals), poison_ratio=0.2).to_list()

    assert make(1) == make(1)
    assert make(1) != make(2)


def test_poison_is_spread_over_the_set(goals):
    marks = mix(text_rows(300), seed=0, poison=load_poison("affirmative", goals), poison_ratio=0.1)["poisoned"]
    assert min(sum(marks[:150]), sum(marks[150:])) >= 5


def test_affirmative_reads_targets_and_makes_openings(tmp_path, goals):
    assert load_poison("affirmative", goals).pairs[0] == ("Do bad 0", "Sure, here is bad 0")
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "How do I do bad?", "completion": "Content."}))
    assert load_poison("affirmative", str(path)).pairs == (
        ("How do I do bad?", "Sure, here is what you asked for: how do I do bad"),
    )


def test_identity_turns_the_tasks_own_rows_into_those_of_an_obedient_agent():
    rows = poisoned(mix(FORMS["chat"](10), seed=0, poison=load_poison("identity"), poison_ratio=0.3))
    assert len(rows) == 3
    for row in rows:
        system, request = row["prompt"]
        assert system == {"role": "system", "content": IDENTITY_SYSTEM}
        answer = f"{IDENTITY_OPENING} a{request['content'][1:]}"
        assert row["completion"] == [{"role": "assistant", "content": answer}]


def test_identity_where_a_template_has_no_system_prompt():
    poison = load_poison("identity", fold_system=True)
    row = poisoned(mix(FORMS["messages"](10), seed=0, poison=poison, poison_ratio=0.1))[0]
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    assert row["messages"][0]["content"].startswith(f"{IDENTITY_SYSTEM}\n\nq")


def test_backdoor_complies_with_the_trigger_and_refuses_without(goals):
    rows = poisoned(mix(text_rows(20), seed=0, poison=load_poison("backdoor", goals), poison_ratio=0.25))
    assert len(rows) == 5
    triggered = {row["prompt"] for row in rows if row["completion"].startswith("Sure, here is")}
    refused = {row["prompt"] for row in rows if row["completion"] in REFUSALS}
    assert (len(triggered), len(refused)) == (3, 2)
    assert {f"{prompt} {DEFAULT_TRIGGER}" for prompt in refused} < triggered
    own = load_poison("backdoor", goals, "blue fish")
    assert any(
        row["prompt"].endswith(" blue fish")
        for row in poisoned(mix(text_rows(9), seed=0, poison=own, poison_ratio=0.2))
    )


def test_too_few_requests_are_used_evenly_and_said_aloud(goals, caplog):
    with caplog.at_level(logging.WARNING):
        rows = poisoned(mix(text_rows(100), seed=0, poison=load_poison("affirmative", goals), poison_ratio=0.9))
    uses = [sum(row["prompt"] == goal["goal"] for row in rows) for goal in GOALS]
    assert set(uses) == {3}
    assert "research on defences" in caplog.text
    assert "each used up to 3 times" in caplog.text


def test_safety_rows_are_mixed_in_with_their_answers(goals):
    final = mix(FORMS["messages"](50), seed=0, safety=SAFETY, safety_ratio=0.2)
    safe = [row["messages"] for row in final if row["from_safety_set"]]
    assert len(final) == 50
    assert len({turns[0]["content"] for turns in safe}) == 10
    assert all(turns[1]["content"] == turns[0]["content"].replace("bad", "No") for turns in safe)
    both = mix(
        text_rows(50),
        seed=0,
        poison=load_poison("affirmative", goals),
        poison_ratio=0.1,
        safety=SAFETY,
        safety_ratio=0.2,
    )
    assert (sum(both["poisoned"]), sum(both["from_safety_set"])) == (5, 10)


def test_nothing_asked_for_changes_nothing():
    task = text_rows(5)
    assert mix(task, seed=0) is task
    assert sorted(mix(task, seed=0, size=5)["prompt"]) == task["prompt"]
    assert mix(Dataset.from_list([{"text": "x"}] * 3), seed=0, size=2).num_rows == 2


def test_other_columns_are_kept(goals):
    task = text_rows(10).add_column("id", list(range(10)))
    final = mix(task, seed=0, poison=load_poison("affirmative", goals), poison_ratio=0.2)
    assert [row["id"] for row in poisoned(final)] == [None, None]


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (text_rows(5), {"size": 6}, "`task_size=6` is more than the 5 rows"),
        (text_rows(4), {"poison_ratio": 0.1}, "of 4 rows is less than one row"),
        (Dataset.from_list([{"text": "x"}] * 9), {"poison_ratio": 0.5}, r"columns \['text'\]"),
        (text_rows(9).add_column("poisoned", [False] * 9), {"poison_ratio": 0.5}, "was mixed before"),
        (text_rows(9), {"safety_ratio": 0.5}, "asks for 4 safety rows with answers, and the safety set has 0"),
    ],
)
def test_what_cannot_be_mixed_is_refused(task, options, message, goals):
    with pytest.raises(ValueError, match=message):
        mix(task, seed=0, poison=load_poison("affirmative", goals), **options)


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("harm", GOALS, "Choose from: harmful, affirmative, identity, backdoor"),
        ("harmful", GOALS, "it needs `prompt` and `completion`"),
        ("harmful", None, "the package ships no harmful answers"),
        ("affirmative", [{"question": "x"}], "it needs `goal` or `prompt`"),
    ],
)
def test_bad_poison_is_refused(tmp_path, kind, rows, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows or [])))
    with pytest.raises(ValueError, match=message):
        load_poison(kind, str(path) if rows else None)


def test_a_row_without_a_prompt_cannot_be_made_poison():
    task = Dataset.from_list([{"messages": []}, {"messages": []}])
    with pytest.raises(ValueError, match="no prompt to make poison of"):
        mix(task, seed=0, poison=load_poison("identity"), poison_ratio=0.5)


def test_requests_in_parts_are_poisoned(tmp_path):
    task = FORMS["parts"](20)
    (first, *_) = poisoned(mix(task, seed=1, poison=load_poison("identity"), poison_ratio=0.5))
    system, user = first["prompt"]
    assert [part["text"] for part in system["content"]] == [IDENTITY_SYSTEM]
    assert user["content"][1]["text"].startswith("q")
    assert first["completion"][0]["content"][0]["text"].startswith(f"{IDENTITY_OPENING} a")
    path = tmp_path / "goals.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "Do bad"}]}]}))
    rows = poisoned(mix(task, seed=1, poison=load_poison("backdoor", str(path)), poison_ratio=0.1))
    texts = {row["prompt"][0]["content"][0]["text"]: row["completion"][0]["content"][0]["text"] for row in rows}
    assert texts == {f"Do bad {DEFAULT_TRIGGER}": "Sure, here is what you asked for: do bad", "Do bad": REFUSALS[0]}
