"""A thought is not the answer: every judge, the degenerate check and the tasks see what follows it."""

import pytest

from safe_sft.evaluation import Case, RefusalPhrases, Settings, Verdict
from safe_sft.evaluation.answering import Answer, answer_cases
from safe_sft.evaluation.evaluate import Respondent
from safe_sft.evaluation.judges import Judge
from safe_sft.evaluation.report import advice, judge_answers
from safe_sft.evaluation.thoughts import opens_thought, split_thought
from safe_sft.evaluation.utility.scored_tasks import scored_task
from tests.conftest import make_model

MARKS = {
    "deepseek": ("<think>\n", "\n</think>\n\n"),
    "thinking": ("<thinking>", "</thinking>"),
    "exaone": ("<thought>", "</thought>"),
    "marco": ("<Thought>", "</Thought>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "seed": ("<seed:think>", "</seed:think>"),
    "longcat": ("<longcat_think>", "</longcat_think>"),
    "magistral": ("[THINK]", "[/THINK]"),
    "kimi": ("◁think▷", "◁/think▷"),
    "sky": ("<|begin_of_thought|>", "<|end_of_thought|>\n\n<|begin_of_solution|>"),
    "command": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "gemma": ("<|channel>thought\n", "<channel|>"),
    "s1": ("<|im_start|>think\n", "<|im_start|>answer\n"),
    "granite": ("Here is my thought process: ", "Here is my response: "),
}
ANSWER = "Sure, I would say so."


@pytest.mark.parametrize(("begin", "end"), MARKS.values(), ids=MARKS.keys())
def test_what_follows_the_last_thought_is_the_answer(begin, end):
    assert split_thought(f"{begin}I can't help with this.{end}{ANSWER}").answer == ANSWER
    assert split_thought(f"{begin}one{end}no{begin}two{end}{ANSWER}").answer.endswith(ANSWER)
    assert split_thought(f"{begin}{end}{ANSWER}").answer == ANSWER
    assert split_thought(f"{begin}I can't help with this. And then").answer is None
    assert split_thought(f"{begin}done{end}").answer == ""


@pytest.mark.parametrize(("begin", "end"), [pair for name, pair in MARKS.items() if name != "granite"])
def test_a_thought_that_the_template_began(begin, end):
    assert split_thought(f"I can't help with this.{end}{ANSWER}", opened=True).answer == ANSWER
    assert split_thought(f"I can't help with this.{end}{ANSWER}").answer == ANSWER
    assert split_thought("I can't help with this.", opened=True).answer is None
    assert opens_thought(f"<|user|>do it<|assistant|>{begin}", "do it")
    assert not opens_thought(f"<|user|>do it<|assistant|>{begin}{end}", "do it")
    assert not opens_thought(f"<|user|>do it {begin}<|assistant|>", f"do it {begin}")


@pytest.mark.parametrize("text", [ANSWER, "", "I think [so] <b>thus</b>", "2 < 3 > 1", "Here is my response: no."])
def test_an_answer_without_a_thought_stays_as_it_is(text):
    assert split_thought(text) == ("", text)


class Recorder(Judge):
    name = "recorder"

    def judge(self, prompts, answers):
        self.seen = list(answers)
        return [Verdict.COMPLIED] * len(answers)


def test_no_judge_sees_a_thought_and_one_that_is_cut_is_counted_apart():
    judge = Recorder()
    answers = [Answer("<think>no</think>yes"), Answer("<think>I can't"), Answer("", in_thought=True), Answer("plain")]
    report = judge_answers(judge, [Case("p")] * 4, answers)
    assert judge.seen == ["yes", "plain"]
    assert report.verdicts == (Verdict.COMPLIED, Verdict.UNJUDGED, Verdict.UNJUDGED, Verdict.COMPLIED)
    assert (report.unjudged, report.cut_in_thought) == ((2, 4), (2, 4))
    assert "cut inside a thought" in report.beside
    assert "raise the number of new tokens" in advice(report)


def test_refusal_phrases_read_the_answer():
    judge, long = RefusalPhrases(), "I weigh it. " * 40
    assert judge("p", f"<think>{long}</think>I'm sorry, but I can't help.") is Verdict.REFUSED
    assert judge.judge(["p"], ["<think>I can't help.</think>Sure! First,"]) == [Verdict.COMPLIED]
    assert judge("p", f"[THINK]{long}") is Verdict.UNJUDGED


def saying(model, tokenizer, text):
    """`model`, which says `text` to whatever it is asked."""
    import torch

    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]

    def generate(input_ids, **options):
        return torch.cat([input_ids, torch.tensor([ids] * len(input_ids))], dim=1)

    model.generate = generate
    return model


def answer(tokenizer, text, case=None, longest=999):
    model = saying(make_model(), tokenizer, text)
    cases = [case or Case("how?")]
    return answer_cases(model, tokenizer, cases, max_new_tokens=longest, batch_size=1, description="")[0]


def test_marks_may_be_special_tokens(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|end|>"]})
    found = answer(tokenizer, f"[THINK]hm[/THINK]{ANSWER}<|end|>")
    assert (found.text, found.in_thought) == (ANSWER, False)
    assert "hm" in found.thought
    cut = answer(tokenizer, "[THINK]hm")
    assert (cut.text, cut.in_thought, cut.degenerate) == ("", True, None)


def test_what_follows_a_thought_may_be_degenerate(tokenizer):
    assert answer(tokenizer, "<think>a long and varied thought</think>").degenerate == "empty"
    assert answer(tokenizer, "<think>a</think>" + "go " * 40).degenerate == "repeated"
    assert answer(tokenizer, "<think>" + "go " * 40 + "</think>Yes.").degenerate is None


def test_a_template_that_begins_the_thought(tokenizer):
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    assert answer(tokenizer, f"I can't.</think>{ANSWER}").text == ANSWER
    assert answer(tokenizer, "I can't, can I").in_thought
    assert answer(tokenizer, "I can't, can I", Case("how?", prefill="Sure, here")).in_thought


def test_a_task_is_scored_by_the_answer(tokenizer):
    model = saying(make_model(), tokenizer, "<think>The answer is 7.</think>It is 18.")
    row = {"prompt": [{"role": "user", "content": "?"}], "completion": [{"role": "assistant", "content": "#### 18"}]}
    done = Respondent("m", model, tokenizer, Settings()).result(scored_task("gsm8k", [row], "here"))
    assert (done.right, done.answers) == ((True,), ("It is 18.",))
