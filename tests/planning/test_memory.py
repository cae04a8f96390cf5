"""What optimizers, anchors, importance, teacher and average take, against the real things."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from safe_sft.importance import anchor_space, space_sizes
from safe_sft.importance.file import Importance, Provenance
from safe_sft.importance.space import space_name
from safe_sft.planning.data import Rows, count_safety_rows
from safe_sft.planning.memory import StepMemory, safety_items
from safe_sft.planning.model import plan_model
from safe_sft.planning.optimizers import optimizer_states

from ..conftest import lora, make_config, make_model, make_tokenizer, make_trainer, safety_rows

#: Wide enough that some parameters are above the 4096 elements from which on 8-bit states are used.
WIDE = {"hidden_size": 72, "intermediate_size": 100}
REMEMBERED = "remembered states of the aligned model, at most"


def state_bytes(optimizer) -> int:
    """Bytes of all distinct tensors in the states of an optimizer."""
    tensors = {t.data_ptr(): t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)}
    return sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize("peft", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize(
    "optim", ["adamw_torch", "adamw_torch_fused", "sgd", "adafactor", "rmsprop", "adagrad", "adamw_8bit", "lion_8bit"]
)
def test_optimizer_states_after_a_real_step(tmp_path, optim, peft):
    model = make_model(**WIDE)
    plan = plan_model(model.config, torch.float32, None, lora() if peft else None)
    trainer = make_trainer(tmp_path, "none", model=model, peft=peft, optim=optim, max_steps=1)
    trainer.train()
    found = optimizer_states(optim, plan.trainable, plan.embeddings)
    assert (found.size, found.exact) == (state_bytes(trainer.optimizer.optimizer), True)


def test_unknown_optimizer_is_an_estimate():
    plan = plan_model(make_model().config, torch.bfloat16, None, lora())
    found = optimizer_states("lomo", plan.trainable)
    assert (found.size, found.exact) == (8 * plan.trainable_parameters, False)
    assert optimizer_states("paged_adamw_32bit", plan.trainable) == (found.size, True, True)


ADAPTERS = {"lora": lora(), "lora and head": lora(modules_to_save=["lm_head"]), "full": None}


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS.keys())
@pytest.mark.parametrize("space", ["adapter", "weight"])
def test_anchors_and_importance_are_the_real_ones(tmp_path, adapter, space):
    model = make_model(**WIDE)
    plan = plan_model(model.config, torch.float32, None, adapter)
    if adapter is not None:
        model = get_peft_model(model, LoraConfig(**adapter.to_dict()))
    real = anchor_space(model, space)
    layout = {name: torch.zeros(at.shape) for name, at in real.layout().items()}
    anchors, numbers, _ = space_sizes(plan.runnable, plan.trainable, space, fresh=adapter is not None)
    assert anchors == sum(tensor.nbytes for tensor in real.anchors().values())
    assert numbers == sum(tensor.numel() for tensor in layout.values())
    file = Importance(layout, Provenance("empirical", space, {}, "", "", 1, 1)).save(tmp_path)
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size == 8 + header + 2 * numbers


def test_anchors_of_a_trained_adapter_in_weight_space():
    plan = plan_model(make_model().config, torch.float32, None, lora())
    model = get_peft_model(make_model(), lora())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    anchors, _, _ = space_sizes(plan.runnable, plan.trainable, "weight", fresh=False)
    assert anchors == sum(tensor.nbytes for tensor in anchor_space(model, "weight").anchors().values())


def test_teacher_cache_is_as_large_as_the_real_one(tmp_path):
    tokenizer, rows = make_tokenizer(), safety_rows()
    trainer = make_trainer(tmp_path, "der", teacher="cached", safety=rows, teacher_divergence="squared")
    files = sorted(trainer.teacher.folder.glob("part-*.safetensors"))
    payload = sum(f.stat().st_size - 8 - int.from_bytes(f.read_bytes()[:8], "little") for f in files)
    plan = plan_model(make_model().config, torch.float32, None, lora())
    safety = count_safety_rows(rows, tokenizer, 1024, 128, trainer.args.replayed_tokens)
    items = {item.name: item for item in safety_items(plan, trainer.args, True, 32 * 4, safety)}
    assert (items["teacher cache"].size, items["teacher cache"].basis) == (payload, "exact")
    assert items["Gram matrix of the head (der)"].size == 4 * 32 * 32


@pytest.mark.parametrize("limit", [2.0, 4e-6])
def test_a_memory_is_as_large_as_the_real_one(tmp_path, limit):
    tokenizer, rows = make_tokenizer(), safety_rows()
    trainer = make_trainer(tmp_path, "der", safety=rows, replay_ratio=3.0, max_steps=1, teacher_memory=limit)
    trainer.train()
    plan = plan_model(make_model().config, torch.float32, None, lora())
    safety = count_safety_rows(rows, tokenizer, 1024, 128, trainer.args.replayed_tokens)
    items = {item.name: item for item in safety_items(plan, trainer.args, True, 32 * 4, safety)}
    assert items[REMEMBERED].where == "cpu"
    if limit == 2.0:
        assert (items[REMEMBERED].size, items[REMEMBERED].basis) == (trainer.teacher.memory.size, "exact")
    else:
        assert 0 < trainer.teacher.memory.size <= items[REMEMBERED].size == int(limit * 2**30)


@pytest.mark.parametrize(
    ("method", "settings", "names"),
    [
        ("none", {}, set()),
        ("er", {}, set()),
        ("l2", {}, set()),  # a fresh LoRA in weight space needs no anchor
        ("l2", {"importance_space": "adapter"}, {"anchors"}),
        ("ewc", {}, {"importance", "importance file, without its header"}),
        ("ema", {}, {"average of the weights (ema)"}),
        ("lwf", {}, set()),
        ("lwf", {"teacher_divergence": "hidden"}, set()),
        ("csft", {}, set()),
        ("agem", {}, {"gradient of the safety rows"}),
        ("safegrad", {}, {"gradient of the safety rows", REMEMBERED}),
        ("der", {"teacher_memory": 0}, set()),
        ("der", {}, {REMEMBERED}),
        ("der", {"teacher_divergence": "squared"}, {"Gram matrix of the head (der)", REMEMBERED}),
    ],
)
def test_what_a_method_keeps(tmp_path, method, settings, names):
    plan = plan_model(make_model().config, torch.float32, None, lora())
    args = make_config(tmp_path, safety_method=method, **settings)
    items = safety_items(plan, args, True, 128, Rows(6, 10, 10, 5))
    assert {item.name for item in items} == names
    assert all(item.size > 0 for item in items)


@pytest.mark.parametrize("requested", [None, "adapter", "weight"])
@pytest.mark.parametrize("kind", ["fresh", "trained", "full"])
def test_the_plan_takes_the_space_that_the_anchors_take(kind, requested):
    model = make_model() if kind == "full" else get_peft_model(make_model(), lora())
    for name, parameter in model.named_parameters():
        if kind == "trained" and "lora_B" in name:
            torch.nn.init.ones_(parameter)
    planned = space_name(requested, adapted=kind != "full", fresh=kind == "fresh")
    assert planned == anchor_space(model, requested).name


def test_each_penalty_keeps_anchors_of_its_own(tmp_path):
    plan = plan_model(make_model().config, torch.float32, None, None)
    sizes = {}
    for method in ("l2", "ewc", "l2+ewc"):
        args = make_config(tmp_path, safety_method=method)
        sizes[method] = {item.name: item.size for item in safety_items(plan, args, False, 128, Rows(6, 10, 10, 5))}
    assert sizes["l2"]["anchors"] == plan.trainable_bytes
    assert sizes["l2+ewc"]["anchors"] == 2 * plan.trainable_bytes
    assert sizes["l2+ewc"]["importance"] == sizes["ewc"]["importance"]


@pytest.mark.parametrize("on_cpu", [True, False])
def test_the_average_is_where_it_is_asked_to_be(tmp_path, on_cpu):
    plan = plan_model(make_model().config, torch.bfloat16, None, lora())
    args = make_config(tmp_path, safety_method="ema", ema_on_cpu=on_cpu)
    (average,) = safety_items(plan, args, True, 128, Rows(6, 10, 10, 5))
    assert (average.size, average.where) == (4 * plan.trainable_parameters, "cpu" if on_cpu else "device")


def test_kept_activations_make_way_for_gradients_in_a_single_micro_step():
    once = StepMemory(kept=100, moment=10, kept_name="", moment_name="", overlaps=False)
    assert once.peak(static=1000, gradients=40) == 1110
    assert StepMemory(100, 10, "", "", overlaps=True).peak(1000, 40) == 1150
