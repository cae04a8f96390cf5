"""What a run keeps in memory and on disk, item by item, each marked as exact or estimated."""

from dataclasses import dataclass
from typing import Any

from transformers.training_args import OptimizerNames

from ..config.safe_sft_config import SafeSFTConfig
from ..methods import WeightAnchor
from ..methods.base import ImportanceAnchor
from ..models.adapters import active_lora_layers
from ..models.parts import LogitHead, is_peft_model
from .activations import Activations
from .data import Rows
from .model import ModelPlan
from .optimizers import optimizer_states

EXACT, ESTIMATED = "exact", "estimated"
GRADIENTS = "gradients"

# TRL's fused head works on tiles of this many tokens and words (trl/kernels/chunked_logprob.py).
_HEAD_TOKENS, _HEAD_WORDS = 4096, 32768


@dataclass(frozen=True)
class Item:
    """Some bytes.

    Attributes:
        name: what they are of.
        size: bytes.
        basis: `exact` or `estimated`.
        where: `device`, `cpu` or `disk`.
    """

    name: str
    size: int
    basis: str = EXACT
    where: str = "device"


def model_items(plan: ModelPlan, args: SafeSFTConfig) -> list[Item]:
    """Weights, gradients and optimizer states."""
    name = OptimizerNames(args.optim).value
    optimizer = optimizer_states(name, plan.trainable, plan.embeddings)
    paged = " (can be paged out)" if optimizer.paged else ""
    items = [
        Item("quantised weights and their scales", plan.quantized_bytes),
        Item("other frozen weights", plan.frozen_bytes),
        Item("trained weights", plan.trainable_bytes),
        Item(GRADIENTS, plan.trainable_bytes),
        Item(f"optimizer states, {name}{paged}", optimizer.size, EXACT if optimizer.exact else ESTIMATED),
    ]
    return [item for item in items if item.size]


def safety_items(plan: ModelPlan, args: SafeSFTConfig, fresh: bool, state_bytes: int, safety: Rows) -> list[Item]:
    """What the safety methods keep beside the model.

    Args:
        plan: of the model.
        args: of the run.
        fresh: whether the adapter is new.
        state_bytes: of one hidden state.
        safety: the safety rows.
    """
    methods = [method for method, _ in args.safety_terms]
    items: list[Item] = []
    if any(issubclass(method, WeightAnchor) for method in methods):
        items += _anchor_items(plan, args, fresh, any(issubclass(method, ImportanceAnchor) for method in methods))
    if any(method.divergence for method in methods):
        items += _teacher_items(plan, args, fresh, state_bytes, safety)
    if any(method.name == "ema" for method in methods):
        size = sum(4 * p.numel() for p in plan.trainable.values())
        items.append(Item("average of the weights (ema)", size, where="cpu" if args.ema_on_cpu else "device"))
    return items


def _anchor_items(plan: ModelPlan, args: SafeSFTConfig, fresh: bool, weighed: bool) -> list[Item]:
    space = args.importance_space or ("weight" if fresh else "adapter")
    anchors, numbers, roots = anchor_sizes(plan.runnable, plan, space, fresh)
    items = [Item("anchors", anchors)] if anchors else []
    if weighed:
        items.append(Item("importance", 4 * (numbers + roots)))
        items.append(Item("importance file, without its header", 2 * numbers, where="disk"))
    return items


def anchor_sizes(model: Any, plan: ModelPlan, space: str, fresh: bool) -> tuple[int, int, int]:
    """Bytes of the anchors, numbers of importance, and how many of them have a root beside them.

    Args:
        model: on the meta device.
        plan: its parameters.
        space: `adapter` or `weight`.
        fresh: whether the adapter is new, so that the weight space needs no anchors of it.
    """
    if space == "adapter" or not is_peft_model(model):
        return plan.trainable_bytes, plan.trainable_parameters, 0
    rows_and_columns, factors = 0, set()
    for name, layer in active_lora_layers(model):
        for adapter in layer.active_adapters:
            if adapter in layer.lora_B:
                rows_and_columns += layer.lora_B[adapter].out_features + layer.lora_A[adapter].in_features
                factors |= {f"{name}.lora_{side}.{adapter}.weight" for side in "AB"}
    rest = [p for name, p in plan.trainable.items() if name not in factors]
    anchors = sum(p.nbytes for p in rest) if fresh else plan.trainable_bytes
    return anchors, rows_and_columns + sum(p.numel() for p in rest), rows_and_columns


def has_cached_teacher(args: SafeSFTConfig, fresh: bool) -> bool:
    """Whether the aligned model's states are kept on disk, and not computed in every step."""
    if not any(method.needs_teacher for method, _ in args.safety_terms) or args.teacher == "online":
        return False
    return not fresh or args.teacher is not None or args.teacher_cache is not None


def _teacher_items(plan: ModelPlan, args: SafeSFTConfig, fresh: bool, state_bytes: int, safety: Rows) -> list[Item]:
    head, items = LogitHead.of(plan.runnable), []
    width = head.weight.size(1)
    for method in (method for method, _ in args.safety_terms if method.divergence):
        squared = (args.teacher_divergence or method.divergence) == "squared"
        if squared and not head.trained and head.softcap is None:
            items.append(Item(f"Gram matrix of the head ({method.name})", 4 * width * width))
    if head.trained:
        bias = 0 if head.bias is None else head.bias.nbytes
        items.append(Item("head of the aligned model", head.weight.nbytes + bias))
    if has_cached_teacher(args, fresh) and safety.rows is not None:
        size = round(safety.rows * safety.supervised * state_bytes)
        items.append(Item("teacher cache", size, EXACT if safety.counted else ESTIMATED, "disk"))
    return items


@dataclass(frozen=True)
class StepMemory:
    """What a forward and backward need: estimated.

    Attributes:
        kept: for the backward, from the forward.
        moment: on top of it, where the backward needs most.
        kept_name: what `kept` is.
        moment_name: what `moment` is for.
        overlaps: whether all gradients are there beside all that is kept: from the second micro-step on.
    """

    kept: int
    moment: int
    kept_name: str
    moment_name: str
    overlaps: bool

    def items(self) -> list[Item]:
        """Both, as items."""
        return [
            Item(self.kept_name, self.kept, ESTIMATED),
            Item(f"for a moment: {self.moment_name}", self.moment, ESTIMATED),
        ]

    def peak(self, static: int, gradients: int) -> int:
        """Most bytes at a time: in a single micro-step, what is kept makes way for the gradients as they come.

        Args:
            static: bytes that are there all the time.
            gradients: of all trained parameters.
        """
        both = self.kept + gradients if self.overlaps else max(self.kept, gradients)
        return static + both + self.moment


def step_memory(
    plan: ModelPlan, activations: Activations, args: SafeSFTConfig, tokens: int, supervised: int
) -> StepMemory:
    """What a micro-step needs.

    Args:
        plan: of the model.
        activations: of the batch with its replayed rows.
        args: of the run.
        tokens: of that batch, padding included.
        supervised: tokens that the head sees.
    """
    head, size = LogitHead.of(plan.runnable), 2 if args.bf16 or args.fp16 else 4
    width = head.weight.size(1)
    # Gradients of the widest layer's two factors and of three hidden states, as in float32: found on CPU.
    layer = 4 * tokens * (2 * activations.widest + 3 * width) + plan.largest_quantized * size
    layer += activations.largest_layer if args.gradient_checkpointing else 0
    tiles = min(supervised, _HEAD_TOKENS) * _HEAD_WORDS * size + supervised * width * (4 + 2 * size)
    tiles += 4 * head.weight.numel() if head.trained else 0
    return StepMemory(
        activations.checkpoints if args.gradient_checkpointing else activations.kept,
        max(layer, tiles),
        "activations: inputs of the layers" if args.gradient_checkpointing else "activations",
        "language-model head, in tiles" if tiles > layer else "a layer's backward",
        args.gradient_accumulation_steps > 1,
    )
