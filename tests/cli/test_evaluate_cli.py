"""`safe-sft evaluate` as a user runs it: on tiny models, in a process of its own or in this one."""

import argparse
import json

import pytest

from safe_sft.cli import evaluate
from safe_sft.cli.main import main
from tests.cli.test_cli import run
from tests.conftest import make_model, make_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate")
    for seed, name in enumerate(("a", "b")):
        make_model(seed).save_pretrained(path / name)
        make_tokenizer().save_pretrained(path / name)
    rows = [{"prompt": f"bad {i}", "category": "xy"[i % 2]} for i in range(6)]
    (path / "bad.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (path / "good.csv").write_text("prompt,harmful\nfine,false\nbetter,false\n")
    (path / "sst2.jsonl").write_text("\n".join(json.dumps({"sentence": f"s {i}", "label": i % 2}) for i in range(4)))
    return path


def options(folder, *more: str) -> list[str]:
    suites = ["--suite", f"{folder}/bad.jsonl", f"{folder}/good.csv", "--max-new-tokens", "4", "--dtype", "float32"]
    return ["evaluate", "--model", f"{folder}/a", "--model", f"{folder}/b", "--name", "tuned", *suites, *more]


def test_two_models_two_suites_and_a_task(folder, capsys):
    arguments = options(folder, "--utility", f"sst2:{folder}/sst2.jsonl", "--output", f"{folder}/out")
    assert main([*arguments, "--attack", "none", "aoa+prefill", "--by-category"]) == 0
    text = capsys.readouterr().out
    for expected in ("bad+aoa+prefill", "over-refusal", "tuned", "minus a", "sst2", "report.html"):
        assert expected in text
    results = json.loads((folder / "out" / "results.json").read_text())
    assert [row["suite"] for row in results["safety"][::2]] == ["bad", "bad+aoa+prefill", "good", "good+aoa+prefill"]
    assert results["utility"][1]["against_first"]["n"] == 4
    assert len((folder / "out" / "answers.jsonl").read_text().splitlines()) == 2 * (2 * 6 + 2 * 2 + 4)


def test_the_gate_sets_the_exit_status(folder):
    result = run(*options(folder, "--max-asr", "0.05", "--max-asr-increase", "0.02"))
    assert result.returncode == 1, result.stderr
    assert "FAILED max_asr (tuned, bad, refusal_phrases)" in result.stdout
    assert "FAILED max_asr_increase" in result.stdout


def test_an_unreachable_suite_is_told_and_the_others_run(folder, monkeypatch, capsys):
    import datasets

    def load_dataset(name, *args, **options):
        if "Princeton" in str(options):
            raise ConnectionError("no route")
        return original(name, *args, **options)

    original = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert main(options(folder, "--suite", "maliciousinstruct")) == 0
    text = capsys.readouterr().out
    assert "Not measured: Suite 'maliciousinstruct' could not be loaded" in text
    assert "bad" in text
    assert main(options(folder, "--suite", "maliciousinstruct", "--max-asr", "1")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "advbanch"], "Suite 'advbanch' is unknown"),
        (["--attack", "prefil"], "Attack 'prefil' is unknown"),
        (["--judge", "phrases"], "Judge 'phrases' is unknown"),
        (["--judge", "guard:llama"], "Guard 'llama' is unknown"),
        (["--judge", "classifier:x", "--judge-labels", "A"], "is not of the form LABEL=VERDICT"),
        (["--judge", "api:x", "--judge-max-cost", "1"], "needs `--judge_prices`"),
        (["--utility", "mmlu"], "Utility task 'mmlu' is unknown"),
        (["--max-asr", "5"], "is not a share"),
        (["--limit", "0"], "at least 1"),
        (["--prompts", "missing.jsonl"], "'missing.jsonl' does not exist"),
    ],
)
def test_bad_arguments_end_with_one_clear_line(folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(options(folder, *arguments))
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("safe-sft evaluate: error: ")
    assert message in line


def models(*arguments: str):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return [(m.name, m.path, m.adapter) for m in evaluate._models(parser.parse_args(arguments))]


def test_adapters_and_names_belong_to_the_model_before_them():
    given = ("--model", "org/base", "--model", "org/base", "--adapter", "out/lora/", "--model", "x", "--name", "tuned")
    assert models(*given) == [("base", "org/base", None), ("lora", "org/base", "out/lora/"), ("tuned", "x", None)]
    assert models("--adapter", "out/lora", "--model", "org/base") == [("lora", "org/base", "out/lora")]
    assert [name for name, *_ in models("--model", "m", "--model", "m", "--model", "m")] == ["m", "m (2)", "m (3)"]
    with pytest.raises(ValueError, match="`--model` is missing"):
        models("--adapter", "out")
