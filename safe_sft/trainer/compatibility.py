"""Refuses settings of TRL that clash with a safety method, before anything is trained."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from accelerate.logging import get_logger
from accelerate.utils import DistributedType
from datasets import Dataset
from transformers.training_args import OptimizerNames

from ..methods import SafetyMethod, WeightAnchor
from ..models.adapters import aligned_without_adapter
from ..models.parts import LogitHead, is_peft_model
from ..replay import teacher_kind
from .hub_trainer import HubTrainer
from .outputs import check_merge
from .task_losses import keeps_task_losses

logger = get_logger(__name__)


def must_join(trainer: HubTrainer) -> bool:
    """Return whether replayed rows must join the task's forward, because a second one with gradient is not possible.

    DDP with reentrant checkpointing marks parameters ready twice; where weights are sharded, every rank must run the
    same number of forwards.
    """
    if weights_are_cut_up(trainer):
        return True
    return trainer.accelerator.num_processes > 1 and _reentrant(trainer)


def weights_are_cut_up(trainer: HubTrainer) -> bool:
    """Return whether the weights are sharded while training: under FSDP and DeepSpeed ZeRO-3."""
    return trainer.accelerator.distributed_type == DistributedType.FSDP or _is_zero3(trainer)


def check_compatibility(trainer: HubTrainer, methods: Sequence[SafetyMethod]) -> None:
    """Refuse settings under which a method would compute something else than it says.

    Raises:
        ValueError: for such a setting; the message names the method, the setting and the remedy.
    """
    args = trainer.args
    if args.merge_after_training is not None:
        check_merge(trainer.model, args)
    if weights_are_cut_up(trainer) and (args.safety_eval_steps or args.safety_max_asr):
        raise ValueError(
            "`safety_eval_steps` and `safety_max_asr` do not work with FSDP and DeepSpeed ZeRO-3: sharded weights do "
            "not generate. Remove them, and run `safe-sft evaluate` on checkpoints."
        )
    if args.chat_template_kwargs and trainer._is_vision_dataset:
        raise ValueError(
            "`chat_template_kwargs` does not reach task rows with images, which TRL renders as it trains. Remove it, "
            "and set `chat_template_path` to a template that needs none."
        )
    for term, weight in args.safety_terms:
        if term.has_loss and weight == 0 and not term.projects:
            logger.warning(
                f"`safety_weight` of `{term.name}` is 0: the term is computed and logged, and changes nothing."
            )
    for method in methods:
        for rule in _RULES:
            if rule.applies(trainer, method):
                raise ValueError(f"`safety_method='{method.name}'` does not work with {rule.clash}. {rule.remedy}")


class _Rule(NamedTuple):
    """A method and a setting that do not go together.

    Attributes:
        applies: function that says whether a trainer and one of its methods are such a case.
        clash: what the method does not work with.
        remedy: what to do about it.
    """

    applies: Callable[[HubTrainer, SafetyMethod], bool]
    clash: str
    remedy: str


def _is_parallel(trainer: HubTrainer) -> bool:
    sizes = trainer.accelerator.parallelism_config
    return sizes is not None and max(sizes.tp_size, sizes.cp_size, sizes.sp_size) > 1


def _is_fsdp1(trainer: HubTrainer) -> bool:
    accelerator = trainer.accelerator
    return accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2


def _is_zero3(trainer: HubTrainer) -> bool:
    accelerator = trainer.accelerator
    return bool(
        accelerator.distributed_type == DistributedType.DEEPSPEED
        and accelerator.state.deepspeed_plugin.zero_stage == 3
    )


def _reentrant(trainer: HubTrainer) -> bool:
    args = trainer.args
    kwargs: Any = args.gradient_checkpointing_kwargs or {}
    return args.gradient_checkpointing and bool(kwargs.get("use_reentrant"))


def _steps_in_backward(trainer: HubTrainer) -> bool:
    name = OptimizerNames(trainer.args.optim).value
    return "lomo" in name or "layerwise" in name


def _has_cached_teacher(trainer: HubTrainer, method: SafetyMethod) -> bool:
    args, switchable = trainer.args, aligned_without_adapter(trainer.model)
    kind = teacher_kind(args.teacher, args.teacher_cache, switchable=switchable)
    return (method.needs_teacher and kind == "cached") or (method.keeps_task_losses and keeps_task_losses(trainer))


def _reads_states(method: SafetyMethod) -> bool:
    return method.needs_replay or method.needs_task_states


def _has_rows_in_order(trainer: HubTrainer) -> bool:
    args = trainer.args
    if args.packing or args.padding_free or args.auto_find_batch_size or args.train_sampling_strategy != "random":
        return False
    return _has_tokenized_rows(trainer)


def _has_tokenized_rows(trainer: HubTrainer) -> bool:
    rows = trainer.train_dataset
    return isinstance(rows, Dataset) and not trainer._is_vision_dataset and {"input_ids", "labels"} <= {*rows.features}


def _replays_or_distils(term: tuple[type[SafetyMethod], Any]) -> bool:
    return term[0].needs_replay or term[0].needs_task_states


def _has_other_task_loss(trainer: HubTrainer) -> bool:
    args = trainer.args
    return args.loss_type != "nll" or args.label_smoothing_factor > 0 or trainer.compute_loss_func is not None


def _supervises_prompts(trainer: HubTrainer) -> bool:
    """Return whether rows are supervised as a whole, so that nothing says where an answer begins."""
    rows: Any = trainer.train_dataset
    first: dict[str, Any] = next(iter(rows), {})
    labels = first.get("labels")
    if labels is None:  # made batch by batch, where rows have images
        return not (trainer.completion_only_loss or trainer.args.assistant_only_loss)
    return -100 not in labels


# ZeRO-3 empties weights between uses; a frozen head is gathered for a loss, and nothing else is.
_ELSEWHERE = "use FSDP2, which shards the weights as well, ZeRO-2, or DDP."

#: The error names the first rule that applies.
_RULES = (
    _Rule(
        lambda trainer, method: _is_parallel(trainer),
        "tensor, context or sequence parallelism",
        "Use data parallelism alone.",
    ),
    _Rule(
        lambda trainer, method: _is_fsdp1(trainer),
        "FSDP1",
        "Set `fsdp_version: 2` in the accelerate configuration.",
    ),
    _Rule(
        lambda trainer, method: method.projects and trainer.accelerator.distributed_type == DistributedType.DEEPSPEED,
        "DeepSpeed, which keeps the gradient to itself",
        "Use FSDP2 or DDP, or choose `der` or `er`.",
    ),
    _Rule(
        lambda trainer, method: method.projects and _steps_in_backward(trainer),
        "an optimizer that steps in the backward pass, before the gradient is whole",
        "Set `optim: adamw_torch_fused`, or choose `der` or `er`.",
    ),
    _Rule(
        lambda trainer, method: _is_zero3(trainer) and not _reads_states(method),
        "DeepSpeed ZeRO-3, which empties weights between uses",
        f"Choose `der`, `er` or `lwf`, or {_ELSEWHERE}",
    ),
    _Rule(
        lambda trainer, method: _is_zero3(trainer) and LogitHead.of(trainer.model).trained,
        "a trained head under DeepSpeed ZeRO-3",
        f"Train a LoRA that leaves the head frozen, or {_ELSEWHERE}",
    ),
    _Rule(
        lambda trainer, method: _is_zero3(trainer) and _has_cached_teacher(trainer, method),
        "a cached teacher under DeepSpeed ZeRO-3",
        f"Start a fresh LoRA adapter, whose teacher is `online`, choose `er`, or {_ELSEWHERE}",
    ),
    _Rule(
        lambda trainer, method: _is_zero3(trainer) and method.needs_replay and trainer.aux_loss_enabled,
        "an auxiliary loss of experts under DeepSpeed ZeRO-3, where replayed rows take a forward of their own",
        f"Set `router_aux_loss_coef: 0`, choose `lwf`, or {_ELSEWHERE}",
    ),
    _Rule(
        lambda trainer, method: (
            isinstance(method, WeightAnchor) and trainer.accelerator.num_processes > 1 and _reentrant(trainer)
        ),
        "reentrant gradient checkpointing under DDP",
        "Set `gradient_checkpointing_kwargs={'use_reentrant': False}`.",
    ),
    _Rule(
        lambda trainer, method: (
            trainer.accelerator.is_fsdp2 and "ema_on_cpu" in method.reads and trainer.args.ema_on_cpu
        ),
        "`ema_on_cpu` under FSDP2",
        "Leave it out: the average is sharded as the weights are.",
    ),
    _Rule(
        lambda trainer, method: method.needs_replay and trainer._is_vision_dataset and must_join(trainer),
        "images in the training set, where replayed rows take a forward of their own, under FSDP, ZeRO-3, or "
        "with reentrant gradient checkpointing on several processes",
        "Use DDP with `gradient_checkpointing_kwargs={'use_reentrant': False}`, or choose `l2`.",
    ),
    _Rule(
        lambda trainer, method: method.alternates and any(map(_replays_or_distils, trainer.args.safety_terms)),
        "methods that replay safety rows or distil: it trains on the rows themselves",
        "Choose it alone, or with `l2`, `ewc`, `mas` or `ema`.",
    ),
    _Rule(
        lambda trainer, method: method.alternates and not _has_rows_in_order(trainer),
        "packing, padding-free batches, streaming, images, `auto_find_batch_size` or a sampling strategy of "
        "its own, where safety rows cannot stand in the place of the task's",
        "Leave these out, or choose `er`, which replays safety rows beside the task's.",
    ),
    _Rule(
        lambda trainer, method: (
            (method.needs_teacher or method.needs_task_states) and bool(trainer.args.neftune_noise_alpha)
        ),
        "NEFTune: its noise would count as forgetting",
        "Remove `neftune_noise_alpha`, or choose `er` or `l2`.",
    ),
    _Rule(
        lambda trainer, method: method.reweights_task and _has_other_task_loss(trainer),
        "a task loss other than the cross-entropy, whose tokens it reweights",
        "Remove `loss_type`, `label_smoothing_factor` and `compute_loss_func`, or choose `lwf`.",
    ),
    _Rule(
        lambda trainer, method: method.reweights_task and _supervises_prompts(trainer),
        "rows that are supervised from the request's first token on, which hides where an answer begins",
        "Give rows of `prompt` and `completion`, or set `assistant_only_loss: true` for `messages`.",
    ),
    _Rule(
        lambda trainer, method: (
            method.reweights_task and trainer.args.packing and trainer.args.packing_strategy != "bfd"
        ),
        "packing that cuts answers in pieces, whose first tokens would be taken for the first of an answer",
        "Set `packing_strategy: bfd`.",
    ),
    _Rule(
        lambda trainer, method: (
            method.keeps_task_losses and keeps_task_losses(trainer) and not _has_tokenized_rows(trainer)
        ),
        "rows that are streamed or tokenised as they are loaded: the aligned model must see them before training",
        "Give a `Dataset`, or train a fresh LoRA adapter with `teacher: online`.",
    ),
    _Rule(
        lambda trainer, method: (
            method.needs_task_states
            and not (method.keeps_task_losses and keeps_task_losses(trainer))
            and not aligned_without_adapter(trainer.model)
        ),
        "full tuning, an adapter trained before, or base weights trained beside it: the aligned model is "
        "not at hand for the task rows",
        "Start a fresh LoRA adapter, or choose `der`, or `csft` without `teacher: online`.",
    ),
    _Rule(
        lambda trainer, method: (
            _reads_states(method)
            and is_peft_model(trainer.model)
            and trainer.model.active_peft_config.is_prompt_learning
        ),
        "prompt-learning adapters, which add virtual tokens",
        "Use LoRA.",
    ),
)
