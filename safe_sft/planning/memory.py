"""Lists what a run keeps in memory and on disk, each item marked as exact or estimated."""

from collections import defaultdict
from dataclasses import dataclass

from transformers.training_args import OptimizerNames

from ..config.safe_sft_config import SafeSFTConfig
from ..methods.kept import Outline
from ..models.parts import LogitHead
from .activations import Activations
from .data import Rows
from .model import ModelPlan
from .optimizers import optimizer_states
from .teacher import has_cached_teacher, has_online_teacher, remembered_bytes

EXACT, ESTIMATED = "exact", "estimated"
GRADIENTS = "gradients"

# TRL's fused head works on tiles of this many tokens and words (trl/kernels/chunked_logprob.py).
_HEAD_TOKENS, _HEAD_WORDS = 4096, 32768


@dataclass(frozen=True)
class Item:
    """One thing that takes memory or disk space.

    Attributes:
        name: name in the plan's table.
        size: size in bytes.
        basis: whether the size is `exact` or `estimated`.
        where: place where it is kept: `device`, `cpu` or `disk`.
    """

    name: str
    size: int
    basis: str = EXACT
    where: str = "device"


def model_items(plan: ModelPlan, args: SafeSFTConfig) -> list[Item]:
    """List weights, gradients and optimizer states."""
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
    """List what the safety methods keep beside the model, and the teacher that they share.

    Args:
        plan: plan of the model that is trained.
        args: the run's `SafeSFTConfig`.
        fresh: whether the adapter is new.
        state_bytes: bytes of one hidden state.
        safety: the safety rows.
    """
    outline = Outline(args, plan.runnable, plan.trainable, fresh)
    kept: dict[tuple[str, str], int] = defaultdict(int)
    for method, _ in args.safety_terms:
        for tensors in method.keeps(outline):
            kept[tensors.name, tensors.where] += tensors.size
    items = [Item(name, size, where=where) for (name, where), size in kept.items()]
    return items + _teacher_items(plan, args, fresh, state_bytes, safety)


def _teacher_items(plan: ModelPlan, args: SafeSFTConfig, fresh: bool, state_bytes: int, safety: Rows) -> list[Item]:
    head, items = LogitHead.of(plan.runnable), []
    if head.trained and any(method.divergence for method, _ in args.safety_terms):
        bias = 0 if head.bias is None else head.bias.nbytes
        items.append(Item("head of the aligned model", head.weight.nbytes + bias))
    if has_cached_teacher(args, fresh) and safety.rows is not None:
        size = round(safety.rows * safety.supervised * state_bytes)
        items.append(Item("teacher cache", size, EXACT if safety.counted else ESTIMATED, "disk"))
    if has_online_teacher(args, fresh) and (size := remembered_bytes(args, safety, state_bytes)):
        basis = EXACT if safety.counted else ESTIMATED
        items.append(Item("remembered states of the aligned model, at most", size, basis, "cpu"))
    return items


@dataclass(frozen=True)
class StepMemory:
    """What a forward and backward need, estimated.

    Attributes:
        kept: bytes that the forward keeps for the backward.
        moment: further bytes at the moment when the backward needs most.
        kept_name: what `kept` is, for the table.
        moment_name: what `moment` is for, for the table.
        overlaps: whether all gradients exist beside all that is kept: from the second micro-step on, and when a step
            is projected.
    """

    kept: int
    moment: int
    kept_name: str
    moment_name: str
    overlaps: bool

    def items(self) -> list[Item]:
        """Return `kept` and `moment` as items."""
        return [
            Item(self.kept_name, self.kept, ESTIMATED),
            Item(f"for a moment: {self.moment_name}", self.moment, ESTIMATED),
        ]

    def peak(self, static: int, gradients: int) -> int:
        """Return the most bytes at a time: in a single micro-step, kept activations are freed as gradients are made.

        Args:
            static: bytes that are in use all the time.
            gradients: bytes of the gradients of all trained parameters.
        """
        both = self.kept + gradients if self.overlaps else max(self.kept, gradients)
        return static + both + self.moment


def step_memory(
    plan: ModelPlan, activations: Activations, args: SafeSFTConfig, tokens: int, supervised: int
) -> StepMemory:
    """Estimate what a micro-step needs.

    Args:
        plan: plan of the model that is trained.
        activations: activations of the batch, replayed rows included.
        args: the run's `SafeSFTConfig`.
        tokens: tokens of that batch, padding included.
        supervised: number of tokens that go through the head.
    """
    head, size = LogitHead.of(plan.runnable), 2 if args.bf16 or args.fp16 else 4
    width = head.weight.size(1)
    # Gradients of the widest layer's two factors and of three hidden states, as in float32: found on CPU.
    layer = 4 * tokens * (2 * activations.widest + 3 * width) + plan.largest_quantized * size
    layer += activations.largest_layer if args.gradient_checkpointing else 0
    tiles = min(supervised, _HEAD_TOKENS) * _HEAD_WORDS * size + supervised * width * (4 + 2 * size)
    tiles += 4 * head.weight.numel() if head.trained else 0
    return StepMemory(
        kept=activations.checkpoints if args.gradient_checkpointing else activations.kept,
        moment=max(layer, tiles),
        kept_name="activations: inputs of the layers" if args.gradient_checkpointing else "activations",
        moment_name="language-model head, in tiles" if tiles > layer else "a layer's backward",
        overlaps=args.gradient_accumulation_steps > 1 or any(method.projects for method, _ in args.safety_terms),
    )
