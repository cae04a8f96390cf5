"""Which distance to the aligned model a method takes."""

import pytest

from safe_sft.methods import METHODS
from tests.conftest import make_config


@pytest.mark.parametrize("asked", [None, "jsd"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_own_divergence_unless_another_is_asked_for(tmp_path, name, asked):
    args = make_config(tmp_path, safety_method="der", teacher_divergence=asked)
    own = {"der": "kl", "lwf": "kl", "safegrad": "kl"}.get(name)
    assert METHODS[name].divergence_of(args) == (own and (asked or own))
