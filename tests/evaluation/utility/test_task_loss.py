"""The loss on held-out rows: TRL's own, in whatever form the rows are, with an interval over rows."""

import json
from math import sqrt

import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F

from safe_sft.cli.main import main
from safe_sft.evaluation.utility.task_loss import TaskLoss, TaskRows, measure_task_loss, task_rows
from tests.conftest import make_model, make_tokenizer, make_trainer
from tests.conftest import task_rows as rows_of_the_task

CHAT = [
    {
        "prompt": [{"role": "user", "content": f"colour {i}?"}],
        "completion": [{"role": "assistant", "content": "red" * (i + 1)}],
    }
    for i in range(5)
]


def test_the_mean_and_its_interval_by_hand():
    loss = TaskLoss("m", "t", "s", (2.0, 4.0), (1, 3))
    assert loss.value == 1.5
    # Residuals ±0.5; √(2 · 0.5) / 4 = 0.25 standard errors.
    assert loss.half_width == pytest.approx(1.959964 * sqrt(2 * 0.5) / 4)
    assert loss.as_dict() == {
        "value": 1.5,
        "low": pytest.approx(1.01, abs=1e-4),
        "high": pytest.approx(1.99, abs=1e-4),
        "n": 2,
    }
    assert str(loss) == "1.500 ± 0.490"


@pytest.mark.parametrize("form", ["text", "chat", "messages"])
def test_it_is_trl_s_own_loss_on_rows_of_any_form(tmp_path, form):
    rows = {
        "text": rows_of_the_task(6),
        "chat": Dataset.from_list(CHAT),
        "messages": Dataset.from_list([{"messages": row["prompt"] + row["completion"]} for row in CHAT]),
    }[form]
    pairs = Dataset.from_list(CHAT) if form == "messages" else rows
    trainer = make_trainer(tmp_path, "none", evaluation=pairs, peft=False, per_device_eval_batch_size=8)
    ours = measure_task_loss(trainer.model, make_tokenizer(), TaskRows("t", list(rows), "s"), name="m", batch_size=2)
    assert ours.value == pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-5)
    assert len(ours.sums) == len(rows)


def test_rows_of_plain_text_are_predicted_whole():
    model, tokenizer = make_model(), make_tokenizer()
    ids = torch.tensor([tokenizer("abcde")["input_ids"]])
    expected = F.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum").item()
    found = measure_task_loss(model, tokenizer, TaskRows("t", [{"words": "abcde"}], "s", "words"), name="m")
    assert found.sums == (pytest.approx(expected, rel=1e-5),)
    cut = TaskRows("t", [{"words": "abcde"}], "s", "words", max_length=3)
    assert measure_task_loss(model, tokenizer, cut, name="m").tokens == (2,)


def test_rows_without_an_answer_are_refused():
    with pytest.raises(ValueError, match=r"None of the 1 rows of 'file\.jsonl' has an answer"):
        measure_task_loss(make_model(), make_tokenizer(), TaskRows("t", [{"text": ""}], "file.jsonl"), name="m")


def test_evaluate_measures_it_for_every_model(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, CHAT)))
    (tmp_path / "asks.jsonl").write_text(json.dumps({"prompt": "bad"}))
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    words = ["evaluate", "--model", str(tmp_path / "model"), "--prompts", str(tmp_path / "asks.jsonl")]
    words += ["--max_new_tokens", "2", "--task_loss", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    (entry,) = json.loads((tmp_path / "out" / "results.json").read_text())["task_loss"]
    expected = measure_task_loss(make_model(), make_tokenizer(), task_rows(str(tmp_path / "rows.jsonl")), name="model")
    assert entry["loss"]["value"] == pytest.approx(expected.value)
    assert "Task loss" in (tmp_path / "out" / "report.html").read_text()
    assert f"{expected.value:.3f} ±" in capsys.readouterr().out


def test_a_file_without_answers_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "why?"}))
    with pytest.raises(ValueError, match=r"has the columns \['question'\]. A task loss needs"):
        task_rows(str(tmp_path / "rows.jsonl"))


def test_tools_of_a_row_are_in_what_is_measured():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% if tools %}{{ tools[0].name }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    row = {**CHAT[0], "tools": json.dumps([{"name": "weather"}])}
    without, with_tools, by_hand = (
        measure_task_loss(make_model(), tokenizer, TaskRows("t", [each], "s"), name="m")
        for each in (
            CHAT[0],
            row,
            {**CHAT[0], "prompt": [{"role": "user", "content": f"weather{CHAT[0]['prompt'][0]['content']}"}]},
        )
    )
    assert with_tools.sums == by_hand.sums != without.sums
    assert with_tools.tokens == without.tokens
