"""Where tensors are, and in which precision they are computed; the meta device stands in for an accelerator."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from safe_sft.evaluation import answering, load_model
from safe_sft.importance.objective import Objective
from safe_sft.losses import Head
from safe_sft.methods import csft, er, teacher_distance
from safe_sft.models import loading
from safe_sft.run.measure import Questions, builtin_suite
from safe_sft.run.train import _ask
from tests.conftest import make_model, make_tokenizer, make_trainer

META = torch.device("meta")


def test_what_the_terms_compare_is_where_the_hidden_states_are(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, "der+er", peft=False, teacher_divergence="squared")
    width = trainer.model.config.hidden_size
    compared = []

    def listen(*inputs):
        heads = [value for x in inputs if isinstance(x, Head) for value in vars(x).values()]
        compared.append({x.device for x in [*inputs, *heads] if isinstance(x, torch.Tensor)})

    monkeypatch.setattr(er, "token_cross_entropy", listen)
    monkeypatch.setattr(teacher_distance, "tiled_squared_logit_distance", listen)
    states = trainer._states._states(
        trainer.model,
        torch.zeros(3, width, device=META),
        torch.zeros(3, dtype=torch.long),
        lambda: torch.ones(3, width),
    )
    for method in trainer._methods:
        method.token_losses(states)
    assert compared == [{META}] * 2


def test_a_model_is_loaded_onto_the_device_of_its_process(tmp_path, monkeypatch):
    make_model().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr(loading, "PartialState", lambda: SimpleNamespace(device=META))
    model, _ = load_model(str(tmp_path))
    assert {parameter.device for parameter in model.parameters()} == {META}


@pytest.mark.parametrize("bf16", [True, False])
def test_safety_is_measured_in_the_precision_of_training(tmp_path, bf16, monkeypatch):
    generate, autocast = answering.generate, []

    def listen(*args, **options):
        autocast.append(torch.is_autocast_enabled("cpu"))
        return generate(*args, **options)

    monkeypatch.setattr(answering, "generate", listen)
    measured = {"safety_eval_steps": 1, "safety_eval_size": 2, "safety_eval_max_new_tokens": 2}
    trainer = make_trainer(tmp_path, "l2", bf16=bf16, max_steps=1, **measured)
    _ask(trainer, Questions((builtin_suite("builtin-harmless").subset(2),)), "before")
    trainer.train()
    assert autocast == [bf16] * 2


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("method", ["er", "lwf", "csft"])
def test_the_vocabulary_is_projected_onto_in_the_precision_of_training(tmp_path, method, bf16, monkeypatch):
    module, name = {
        "er": (er, "token_cross_entropy"),
        "lwf": (teacher_distance, "token_divergence"),
        "csft": (csft, "token_cross_entropy"),
    }[method]
    kernel, autocast = getattr(module, name), []

    def listen(*args, **options):
        autocast.append(torch.is_autocast_enabled("cpu"))
        return kernel(*args, **options)

    monkeypatch.setattr(module, name, listen)
    make_trainer(tmp_path, method, bf16=bf16, max_steps=1).train()
    assert autocast == [bf16] * (2 if method == "csft" else 1)  # of the aligned model as well


@pytest.mark.parametrize("bf16", [True, False])
def test_importance_is_estimated_in_the_precision_of_training(tmp_path, bf16, monkeypatch):
    forward, autocast = Objective.__call__, []

    def listen(objective, batch):
        with forward_hook(objective._model.get_base_model().model, autocast):
            return forward(objective, batch)

    monkeypatch.setattr(Objective, "__call__", listen)
    trainer = make_trainer(tmp_path, "ewc", bf16=bf16)
    assert set(autocast) == {bf16}
    assert {tensor.dtype for tensor in trainer._methods[0]._space.state_dict().values()} <= {torch.float32}


@contextmanager
def forward_hook(module, seen):
    handle = module.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    yield
    handle.remove()
