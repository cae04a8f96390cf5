"""The trainer's arguments where a tool has put a class in the place of TRL's trainer, as Unsloth does."""

import inspect
from dataclasses import dataclass

import pytest
from transformers import TrainingArguments
from trl import SFTTrainer

from safe_sft.trainer import drop_in
from safe_sft.trainer.drop_in import argument_of, complete_config, signature_with


class Unnamed(SFTTrainer):
    """Names no argument, and hands all of them on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class Open(SFTTrainer):
    """Names those that are read here, and takes further ones."""

    def __init__(self, model, args=None, data_collator=None, train_dataset=None, **kwargs):
        super().__init__(model, args, data_collator, train_dataset, **kwargs)


class Ours:
    """Has the argument that is added."""

    def __init__(self, *, safety_dataset=None):
        """Take it."""


@pytest.mark.parametrize("theirs", [SFTTrainer, Unnamed, Open])
def test_arguments_are_found_by_name_and_by_position(monkeypatch, theirs):
    monkeypatch.setattr(drop_in, "SFTTrainer", theirs)
    assert argument_of("train_dataset", "model", None, None, "rows") == "rows"
    assert argument_of("train_dataset", "model", train_dataset="rows") == "rows"
    assert argument_of("train_dataset", "model") is None
    assert list(signature_with(Ours, "safety_dataset").parameters)[:3] == ["self", "model", "args"]


def test_the_signature_shows_our_argument_before_further_ones(monkeypatch):
    monkeypatch.setattr(drop_in, "SFTTrainer", Open)
    parameters = signature_with(Ours, "safety_dataset").parameters
    assert list(parameters)[-2:] == ["safety_dataset", "kwargs"]
    assert parameters["safety_dataset"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(("given", "taken"), [(None, False), (False, False), (True, True)])
def test_a_switch_that_a_tool_leaves_open_is_off(tmp_path, given, taken):
    @dataclass
    class Theirs(TrainingArguments):
        activation_offloading: bool | None = None

    args = Theirs(str(tmp_path), use_cpu=True, gradient_checkpointing=False, activation_offloading=given)
    assert complete_config(args, "org/model").activation_offloading is taken
