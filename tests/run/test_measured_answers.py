"""Answers are kept where they are asked for, and a merge of a trained run is that of a run that merges itself."""

import json

import pytest
from trl import DatasetMixtureConfig, ModelConfig

from safe_sft.config.script_arguments import SafeScriptArguments
from safe_sft.evaluation import answering
from safe_sft.evaluation.suites.suite import file_suite
from safe_sft.hub import read_safety
from safe_sft.run import build_run, train
from safe_sft.run.measure import Questions
from safe_sft.run.merged import measure_merge
from tests.conftest import make_config, make_model, make_tokenizer, safety_rows, task_rows


@pytest.fixture
def folder(tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    task_rows(40).to_json(tmp_path / "task.jsonl")
    (tmp_path / "safety.jsonl").write_text("\n".join(map(json.dumps, safety_rows())))
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"evil {i}"}) for i in range(3)))
    return tmp_path


def arguments(folder, name, script=(), **config):
    data = {
        "dataset_name": str(folder / "task.jsonl"),
        "safety_dataset_name": str(folder / "safety.jsonl"),
        "safety_eval_prompts": str(folder / "prompts.jsonl"),
        **dict(script),
    }
    args = make_config(folder / name, safety_method="none", safety_eval_max_new_tokens=3, learning_rate=0.5, **config)
    model = ModelConfig(str(folder / "model"), use_peft=True, lora_target_modules=["all-linear"])
    return SafeScriptArguments(**data), args, model, DatasetMixtureConfig()


def test_the_answers_before_training_are_kept(folder, monkeypatch):
    asked = []
    generate = answering.generate

    def counted(model, tokenizer, prompts, **options):
        asked.append(len(prompts))
        return generate(model, tokenizer, prompts, **options)

    monkeypatch.setattr(answering, "generate", counted)
    questions = Questions(tuple(file_suite(str(folder / "prompts.jsonl")).split()), store=str(folder / "store"))
    model, args = make_model(), make_config(folder / "out", safety_eval_max_new_tokens=3)
    first = questions.ask(model, make_tokenizer(), args, "before")
    again = questions.ask(model, make_tokenizer(), args, "before")
    after = questions.ask(model, make_tokenizer(), args, "after")
    other = questions.ask(make_model(seed=1), make_tokenizer(), args, "before")
    assert asked == [3, 0, 3, 3]
    answers = [one.safety[0].report.answers for one in (first, again, after, other)]
    assert answers[0] == answers[1] == answers[2] != answers[3]


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_a_merge_of_a_trained_run_is_that_of_a_run_that_merges(folder, method):
    train(build_run(*arguments(folder, "plain")))
    merge = {"merge_after_training": method, "merge_weight": 0.4}
    train(build_run(*arguments(folder, "whole", **merge)))
    measure_merge(*arguments(folder, "merge", **merge), str(folder / "plain"))
    whole, merged = read_safety(folder / "whole"), read_safety(folder / "merge")

    def numbers(safety):
        rates = [(row["suite"], row.get("asr"), row.get("over_refusal")) for row in safety["safety"] if is_merge(row)]
        return rates, [row["loss"] for row in safety["task_loss"] if is_merge(row)]

    def is_merge(row):
        return row["model"] == "merged"

    (rates, (loss,)), (same, (same_loss,)) = numbers(merged), numbers(whole)
    assert rates == same
    assert loss["value"] == pytest.approx(same_loss["value"], rel=1e-5)
    plain = next(row["loss"]["value"] for row in read_safety(folder / "plain")["task_loss"] if row["model"] == "after")
    assert abs(loss["value"] - plain) > 1e-3
    lines = [json.loads(line) for line in (folder / "whole" / "_answers.jsonl").read_text().splitlines()]
    mine = [json.loads(line) for line in (folder / "merge" / "_answers.jsonl").read_text().splitlines()]
    assert mine == [line for line in lines if is_merge(line)]
    assert {line["model"] for line in lines} == {"before", "after", "merged"}


def test_a_merge_of_nothing_is_refused(folder):
    with pytest.raises(ValueError, match="`merge_after_training` is not set"):
        measure_merge(*arguments(folder, "merge"), str(folder / "plain"))
