"""Attacks wrap any suite, alone or together, and leave what is judged alone."""

import pytest

from safe_sft.data.tasks import TASKS
from safe_sft.evaluation.suites.attacks import ATTACKS, HISTORY, PREFILL, SUPPRESSION, attack_suite
from safe_sft.evaluation.suites.rendering import case_token_ids
from safe_sft.evaluation.suites.suite import Case, Suite
from tests.conftest import make_tokenizer

WITH_SYSTEM = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
RAISES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + WITH_SYSTEM


def suite(*cases: Case) -> Suite:
    return Suite("s", cases, "", "")


def shown(case: Case, template: str | None) -> str:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer.decode(case_token_ids(tokenizer, case))


def test_none_changes_nothing():
    plain = suite(Case("p"))
    assert attack_suite(plain, "none") is plain


def test_each_attack_keeps_the_request_that_is_judged():
    for name in (name if name != "task" else "task:gsm8k" for name in ATTACKS):
        attacked = attack_suite(suite(Case("how?", "kind")), name)
        assert attacked.name == f"s+{name}"
        case = attacked.cases[0]
        assert (case.prompt, case.category, case.harmful) == ("how?", "kind", True)
        assert case != Case("how?", "kind")


def test_attacks_compose():
    case = attack_suite(suite(Case("how?")), "history+suffix:!!+aoa:OBEY+prefill:Yes").cases[0]
    turns = [{"role": "system", "content": "OBEY"}, *HISTORY, {"role": "user", "content": "how? !!"}]
    assert (case.turns, case.prefill) == (turns, "Yes")


def test_a_second_system_prompt_replaces_the_first():
    case = attack_suite(suite(Case("how?")), "aoa:one+history:Agree?+aoa:two").cases[0]
    assert [turn["content"] for turn in case.turns] == ["two", "Agree?", "Of course.", "how?"]


def test_suppression_follows_the_request():
    assert (
        attack_suite(suite(Case("how?")), "refusal_suppression").cases[0].turns[-1]["content"] == f"how?{SUPPRESSION}"
    )


def test_a_request_wears_the_format_of_a_task():
    for name in TASKS:
        (case,) = attack_suite(suite(Case("how?")), f"task:{name}").cases
        assert case.turns[-1]["content"] == TASKS[name].clothes.replace("{request}", "how?")
        assert "how?" in case.turns[-1]["content"]
    (case,) = attack_suite(suite(Case("how?")), "aoa:X+task:1 + 1: {request} {x}+suffix:!").cases
    assert [turn["content"] for turn in case.turns] == ["X", "1 + 1: how? {x} !"]
    rows = {"gsm8k": {"question": "how?"}, "sst2": {"sentence": "how?"}}
    for name, row in rows.items():  # the format of the training rows, to the letter
        assert TASKS[name].ask(row) == TASKS[name].clothes.replace("{request}", "how?")


def test_a_request_loses_its_mark():
    (case,) = attack_suite(suite(Case("how?")), "unmarked").cases
    assert case.turns[-1]["content"] == "how"
    with pytest.raises(ValueError, match="takes none"):
        attack_suite(suite(Case("how?")), "unmarked:x")


@pytest.mark.parametrize("attack", ["task", "task:gsm9k", "task:Answer this:"])
def test_a_format_without_a_place_for_the_request_is_refused(attack):
    with pytest.raises(ValueError, match=r"has no `\{request\}`.*gsm8k, sst2, code"):
        attack_suite(suite(Case("p")), attack)


def test_unknown_attacks_are_named():
    with pytest.raises(ValueError, match="'prefil' is unknown"):
        attack_suite(suite(Case("p")), "aoa+prefil")


def test_the_model_sees_system_history_and_prefill():
    case = attack_suite(suite(Case("how?")), "aoa:OBEY+prefill").cases[0]
    assert shown(case, WITH_SYSTEM) == f"<system>OBEY<user>how?<assistant>{PREFILL}"


@pytest.mark.parametrize(
    "template", [RAISES, WITH_SYSTEM.replace("{{ m['content'] }}", "{{ m['content'] if m['role'] != 'system' }}")]
)
def test_a_template_without_system_prompts_gets_it_in_the_first_user_turn(template):
    case = attack_suite(suite(Case("how?")), "aoa:OBEY").cases[0]
    assert "<user>OBEY\n\nhow?" in shown(case, template)


def test_without_a_template_messages_become_paragraphs():
    case = attack_suite(suite(Case("how?")), "aoa:OBEY+prefill:Yes").cases[0]
    assert shown(case, None) == "OBEY\n\nhow?\n\nYes"
    assert shown(Case("how?"), None) == "how?"
