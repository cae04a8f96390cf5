"""Counts the floating-point operations of a step, from the exact shapes of linear layers and of attention."""

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ..config.safe_sft_config import SafeSFTConfig
from ..methods.teacher_distance import builds_logits, takes_gram
from ..models.parts import LogitHead
from ..replay import teacher_kind


@dataclass(frozen=True)
class Work:
    """Operations of one optimizer step on one device; a multiplication and an addition are two.

    Attributes:
        forward: forward of the task rows and the replayed rows through the layers.
        backward: backward of the same; a frozen weight takes no gradient, which spares half of its backward.
        recomputed: the forward that gradient checkpointing repeats.
        teacher: forwards of the aligned model.
        head: language-model head on supervised tokens alone, with what its backward computes again.
    """

    forward: float
    backward: float
    recomputed: float
    teacher: float
    head: float

    @property
    def total(self) -> float:
        """All operations together."""
        return self.forward + self.backward + self.recomputed + self.teacher + self.head


@dataclass(frozen=True)
class Batch:
    """The rows that go through the model in one optimizer step on one device.

    Attributes:
        rows: number of rows, as a mean over steps.
        tokens: mean number of tokens of a row.
        supervised: mean number of supervised tokens of a row.
    """

    rows: float
    tokens: float
    supervised: float


def step_work(model: Any, args: SafeSFTConfig, task: Batch, replay: Batch, computed: float) -> Work:
    """Count the operations of a step.

    Args:
        model: the model on the meta device, in the form that computes (`ModelPlan.runnable`).
        args: the run's `SafeSFTConfig`.
        task: the task rows.
        replay: the replayed rows; no rows when nothing is replayed.
        computed: how many replayed rows the aligned model runs.
    """
    weights, trained = linear_elements(model)
    batches = (task, replace(replay, rows=replay.rows * _replay_runs(args)))
    forward = sum(_layers_forward(model, weights, batch) for batch in batches)
    tokens = sum(batch.rows * batch.tokens for batch in batches)
    attention = forward - 2 * weights * tokens
    backward = 2 * (weights + trained) * tokens + 2 * attention
    distilled = task.rows * _task_passes_of_teacher(model, args)
    aligned = weights - _adapter_elements(model)
    teacher = _layers_forward(model, aligned, replace(replay, rows=computed))
    teacher += _layers_forward(model, aligned, replace(task, rows=distilled))
    recomputed = forward if args.gradient_checkpointing else 0.0
    head = _head_work(model, args, task, replay)
    return Work(forward=forward, backward=backward, recomputed=recomputed, teacher=teacher, head=head)


def _task_passes_of_teacher(model: Any, args: SafeSFTConfig) -> float:
    """Count how often the aligned model runs a task row for each time that it is trained on."""
    methods = [method for method, _ in args.safety_terms if method.needs_task_states]
    cached = teacher_kind(args.teacher, None, switchable=_adapter_elements(model) > 0) == "cached"
    if not methods or not (cached and all(method.keeps_task_losses for method in methods)):
        return float(bool(methods))
    return 1 / max(1.0, args.num_train_epochs)


def _replay_runs(args: SafeSFTConfig) -> int:
    """Count how often a replayed row runs: beside the task's rows, and apart from them for a method that projects."""
    return len({method.projects for method, _ in args.safety_terms if method.needs_replay})


def linear_elements(model: Any) -> tuple[float, float]:
    """Count the weight elements that each token is multiplied with in the layers, and how many of them are trained."""
    head = {id(module) for module in model.get_output_embeddings().modules()}
    total = trained = 0.0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and id(module) not in head and ".original_module" not in name:
            total += module.weight.numel()
            trained += module.weight.numel() * module.weight.requires_grad
    for parameter in model.parameters():
        if parameter.dim() == 3:  # experts: (experts, rows, columns), of which a token meets a few
            share = _active_experts(model) / parameter.size(0)
            total += parameter.numel() * share
            trained += parameter.numel() * share * parameter.requires_grad
    return total, trained


def _adapter_elements(model: Any) -> int:
    """Count the weight elements of the adapter, which the aligned model runs without."""
    factors = (module for name, module in model.named_modules() if isinstance(module, nn.Linear) and "lora_" in name)
    return sum(module.weight.numel() for module in factors)


def _active_experts(model: Any) -> int:
    return getattr(model.config.get_text_config(), "num_experts_per_tok", 1)


def _layers_forward(model: Any, weights: float, batch: Batch) -> float:
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # Queries with keys, and weights with values: 2 · 2 · T² a head, of which causality needs half.
    attention = 2 * batch.tokens**2 * config.num_attention_heads * width * config.num_hidden_layers
    return batch.rows * (2 * weights * batch.tokens + attention)


def _head_work(model: Any, args: SafeSFTConfig, task: Batch, replay: Batch) -> float:
    """Count the head's forward, its repetition in the backward, and the gradients of states and trained weight."""
    head = LogitHead.of(model)
    elements = head.weight.numel()
    passes = 4 if head.trained else 3
    work = passes * task.rows * task.supervised
    for method in (method for method, _ in args.safety_terms):
        batch = task if method.needs_task_states else replay
        supervised = batch.rows * batch.supervised
        if method.divergence is None:
            work += passes * supervised if method.needs_replay else 0.0
            work += (passes + 1) * supervised if method.needs_task_states else 0.0  # the aligned model's likelihoods
        elif builds_logits(method.divergence_of(args), head):
            work += (passes + 2) * supervised  # the aligned model's outputs, twice
        elif takes_gram(method.divergence_of(args), head):
            work += 2 * supervised * head.weight.size(1) ** 2 / elements
    return 2 * elements * work
