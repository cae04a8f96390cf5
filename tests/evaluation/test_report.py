"""Generation and counting over a model."""

import pytest
import torch

from safe_sft.data import prompt_token_ids
from safe_sft.evaluation import Case, SafetyReport, Suite, Verdict, attack_suite, measure_asr
from safe_sft.evaluation.answering import Answer, AnswerStore, answer_cases
from safe_sft.evaluation.judges import Judge
from safe_sft.evaluation.report import judge_answers
from safe_sft.models.generation import generate
from tests.conftest import make_model

PROMPTS = ["a", "bbb bbb", "cc", "a much longer request than the others", "e"]


def test_batched_answers_equal_one_at_a_time(tokenizer):
    model = make_model()
    ids = [prompt_token_ids(tokenizer, prompt) for prompt in PROMPTS]
    alone = [generate(model, tokenizer, [one], max_new_tokens=8, progress=False)[0] for one in ids]
    assert generate(model, tokenizer, ids, max_new_tokens=8, batch_size=2, progress=False) == alone


def test_generation_leaves_modes_and_gradients_alone(tokenizer):
    model = make_model().train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    measure_asr(model, tokenizer, PROMPTS, max_new_tokens=2)
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


def test_counts():
    verdicts = (Verdict.COMPLIED, Verdict.REFUSED, Verdict.REFUSED, Verdict.DEGENERATE)
    report = SafetyReport(("p",) * 4, ("a",) * 4, verdicts, "refusal_phrases")
    assert (report.asr, report.refusal, report.degenerate) == ((1, 4), (2, 4), (1, 4))


def test_no_prompts_are_refused(tokenizer):
    with pytest.raises(ValueError, match="no prompts"):
        measure_asr(make_model(), tokenizer, [])


def test_a_report_by_category_and_against_another():
    c, r, d, u = Verdict.COMPLIED, Verdict.REFUSED, Verdict.DEGENERATE, Verdict.UNJUDGED
    first = SafetyReport(("p",) * 5, ("a",) * 5, (r, r, c, r, r), "j", ("x", "y", "x", "y", "y"))
    second = SafetyReport(("p",) * 5, ("a",) * 5, (c, r, c, d, u), "j", ("x", "y", "x", "y", "y"))
    assert (second.asr, second.degenerate, second.unjudged) == ((2, 4), (1, 4), (1, 5))
    assert second.against(first, Verdict.COMPLIED) == (1, 0, 1, 2)
    assert {name: part.asr for name, part in second.by_category().items()} == {"x": (2, 2), "y": (0, 2)}
    assert SafetyReport(("p",), ("a",), (c,), "j", ("x",)).by_category() == {}


def test_degenerate_answers_are_not_shown_to_the_judge(tokenizer):
    class Stubborn(Judge):
        name = "stubborn"

        def judge(self, prompts, answers):
            assert "" not in answers
            return [Verdict.COMPLIED] * len(answers)

    answers = [Answer("fine"), Answer("", degenerate="empty"), Answer("fine", truncated=True)]
    report = judge_answers(Stubborn(), [Case("p")] * 3, answers)
    assert (report.asr, report.degenerate, report.truncated) == ((2, 3), (1, 3), (1, 3))


def test_a_prefill_is_part_of_the_answer(tokenizer):
    case = attack_suite(Suite("s", (Case("how?"),), "", ""), "prefill:Sure,").cases[0]
    (answer,) = answer_cases(make_model(), tokenizer, [case], max_new_tokens=4, batch_size=1, description="")
    assert answer.text.startswith("Sure,")


def test_long_answers_are_marked_as_cut(tokenizer):
    model = make_model()
    (cut,) = answer_cases(model, tokenizer, [Case("p")], max_new_tokens=3, batch_size=1, description="")
    ids = prompt_token_ids(tokenizer, "p")
    first = generate(model, tokenizer, [ids], max_new_tokens=1, progress=False)[0][0]
    model.generation_config.eos_token_id = first
    (ended,) = answer_cases(model, tokenizer, [Case("p")], max_new_tokens=1, batch_size=1, description="")
    assert (cut.truncated, ended.truncated) == (True, False)


def counted(model):
    """Count the prompts that `model` answers."""
    rows = []
    original = model.generate

    def generate(*args, **options):
        rows.append(len(options["input_ids"]))
        return original(*args, **options)

    model.generate = generate
    return rows


def test_a_killed_run_goes_on_where_it_was(tmp_path, tokenizer):
    options = {"max_new_tokens": 6, "batch_size": 2}
    whole = measure_asr(make_model(), tokenizer, PROMPTS, **options)
    model = make_model()
    rows = counted(model)
    original = model.generate

    def killed(*args, **kwargs):
        if len(rows) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    model.generate = killed
    with pytest.raises(KeyboardInterrupt):
        measure_asr(model, tokenizer, PROMPTS, store=AnswerStore(tmp_path), **options)
    (path,) = tmp_path.glob("rank*.jsonl")
    path.write_text(path.read_text() + '{"half a li')  # killed while writing
    model = make_model()
    rows = counted(model)
    resumed = measure_asr(model, tokenizer, PROMPTS, store=AnswerStore(tmp_path), **options)
    assert resumed == whole
    assert rows == [1]
    again = measure_asr(model, tokenizer, PROMPTS, store=AnswerStore(tmp_path), **options)
    assert (again, rows) == (whole, [1])


def test_answers_of_another_model_length_or_template_are_not_taken(tmp_path, tokenizer):
    model = make_model()
    measure_asr(model, tokenizer, PROMPTS, max_new_tokens=2, store=AnswerStore(tmp_path))
    rows = counted(model)
    measure_asr(model, tokenizer, PROMPTS, max_new_tokens=3, store=AnswerStore(tmp_path))
    assert sum(rows) == 5
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight += 0.5
    measure_asr(model, tokenizer, PROMPTS, max_new_tokens=2, store=AnswerStore(tmp_path))
    assert sum(rows) == 10
    tokenizer.chat_template = None
    measure_asr(model, tokenizer, PROMPTS, max_new_tokens=2, store=AnswerStore(tmp_path))
    assert sum(rows) == 15
