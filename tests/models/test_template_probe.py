"""A chat template that does not end, or writes without measure, is refused in time."""

import pytest

from safe_sft.models.fit import ModelError
from safe_sft.models.template_probe import require_ending_template

from ..conftest import make_tokenizer

#: Jinja's sandbox bounds one range, and not what is within another: this one takes some seconds.
SLOW = "{% for i in range(3000) %}{% for j in range(3000) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (SLOW, "did not end within 0.05 s"),
        ("{{ 'x' * 10 ** 7 }}", "more than 1,000,000 characters"),
        ("{{ 'x' * 10 ** 15 }}", "more than 1,000,000 characters"),
    ],
    ids=["loops", "multiplies", "is beyond memory"],
)
def test_it_is_refused_with_its_name(template, reason):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=f"of 'some-model' .*{reason}.* `chat_template_path`"):
        require_ending_template(tokenizer, "some-model", seconds=0.05 if template is SLOW else 20)


@pytest.mark.parametrize("template", [None, "{{ raise_exception('never') }}", "{{ messages[0]['content'] }}"], ids=str)
def test_others_are_let_through(template):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    require_ending_template(tokenizer, "some-model")
