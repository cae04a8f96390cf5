"""The plan of a run: everything that its configuration alone says about memory, tokens and time."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import PeftConfig
from trl import ModelConfig, get_peft_config, get_quantization_config

from ..config.safe_sft_config import SafeSFTConfig
from ..data import TokenizedRow
from ..replay import ReplayBatch, joining_is_cheaper
from .activations import Activations, count_activations
from .compute import Batch, Work, step_work
from .configs import model_config
from .data import Rows
from .gpus import GPU, OVERHEAD_BYTES
from .memory import GRADIENTS, Item, model_items, safety_items, step_memory
from .model import ModelPlan, plan_model


@dataclass(frozen=True)
class Schedule:
    """How often what happens.

    Attributes:
        task_rows: of one optimizer step, over all devices.
        replay_rows: the same of safety rows.
        task_tokens: mean of the task rows of a step.
        replay_tokens: mean of its safety rows.
        steps: optimizer steps of the run; None when the data is not at hand.
        devices: that share a step.
    """

    task_rows: int
    replay_rows: int
    task_tokens: float
    replay_tokens: float
    steps: int | None
    devices: int

    @property
    def replay_row_share(self) -> float:
        """Safety rows among the rows of a step."""
        return self.replay_rows / (self.task_rows + self.replay_rows)

    @property
    def replay_token_share(self) -> float:
        """Safety tokens among the tokens of a step."""
        return self.replay_tokens / (self.task_tokens + self.replay_tokens)


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        model: name of the model.
        method: `safety_method`.
        parameters: of the model.
        trainable: parameters that are trained.
        items: memory of a device, and what lies elsewhere.
        device_bytes: peak of the tensors on one device.
        schedule: rows, tokens and steps.
        work: operations of a step on one device.
        utilization: share of a GPU's peak that times assume.
        assumptions: in words.
    """

    model: str
    method: str
    parameters: int
    trainable: int
    items: tuple[Item, ...]
    device_bytes: int
    schedule: Schedule
    work: Work
    utilization: float
    assumptions: tuple[str, ...]

    def seconds_per_step(self, gpu: GPU) -> float:
        """Time of an optimizer step."""
        return self.work.total / (gpu.flops * self.utilization)

    def hours(self, gpu: GPU) -> float | None:
        """Time of the run, without measuring attack success and saving; None when its steps are not known."""
        return None if self.schedule.steps is None else self.schedule.steps * self.seconds_per_step(gpu) / 3600

    def to_dict(self, gpus: list[GPU]) -> dict[str, Any]:
        """Everything as plain values, with the times on `gpus`; bytes, seconds, hours."""
        schedule = asdict(self.schedule) | {
            "replay_row_share": self.schedule.replay_row_share,
            "replay_token_share": self.schedule.replay_token_share,
        }
        return {
            "model": self.model,
            "safety_method": self.method,
            "parameters": {"total": self.parameters, "trainable": self.trainable, "basis": "exact"},
            "memory": [asdict(item) for item in self.items],
            "device_bytes": {"value": self.device_bytes, "basis": "estimated", "overhead_bytes": OVERHEAD_BYTES},
            "schedule": schedule,
            "step_flops": {**asdict(self.work), "total": self.work.total, "basis": "estimated"},
            "utilization": self.utilization,
            "gpus": [
                {
                    "name": gpu.name,
                    "memory_bytes": gpu.memory,
                    "fits": gpu.fits(self.device_bytes),
                    "seconds_per_step": self.seconds_per_step(gpu),
                    "hours": self.hours(gpu),
                    "basis": "estimated",
                }
                for gpu in gpus
            ],
            "assumptions": list(self.assumptions),
        }


def make_plan(
    args: SafeSFTConfig,
    model: ModelConfig,
    task: Rows,
    safety: Rows,
    *,
    utilization: float,
    devices: int = 1,
    adapter: str | None = None,
) -> Plan:
    """Plan a run.

    Args:
        args: how to train.
        model: which model and adapter.
        task: rows of the task.
        safety: rows to replay.
        utilization: share of a GPU's peak that times assume.
        devices: that train together, each with the whole model.
        adapter: folder or Hub name of an adapter that is trained further.

    Raises:
        ValueError: when the model is not known, or the settings do not go together.
    """
    name = model.model_name_or_path
    if name is None:
        raise ValueError("`model_name_or_path` is missing. Set it in the recipe.")
    config = model_config(name, model.model_revision)
    peft_config = get_peft_config(model) if adapter is None else _trained_adapter(adapter)
    fresh = adapter is None and peft_config is not None
    built = plan_model(
        config, _dtype(model.dtype, config), get_quantization_config(model), peft_config, model.attn_implementation
    )
    replayed = args.replay_batch_size if any(m.needs_replay for m, _ in args.safety_terms) else 0
    activations, tokens = _activations(built, args, task, safety, replayed)
    micro_steps = args.gradient_accumulation_steps
    rows = args.per_device_train_batch_size
    supervised = math.ceil(rows * min(task.supervised * task.longest / task.tokens, task.longest))
    static = [*model_items(built, args), *safety_items(built, args, fresh, activations.state_bytes, safety)]
    step = step_memory(built, activations, args, tokens, supervised)
    always = sum(item.size for item in static if item.where == "device" and item.name != GRADIENTS)
    batches = [
        Batch(count * micro_steps, kind.tokens, kind.supervised) for count, kind in ((rows, task), (replayed, safety))
    ]
    sizes = [batch.rows * devices for batch in batches]
    schedule = Schedule(
        sizes[0], sizes[1], sizes[0] * task.tokens, sizes[1] * safety.tokens, _steps(args, task, devices), devices
    )
    return Plan(
        name,
        args.safety_method,
        built.parameters,
        built.trainable_parameters,
        (*static, *step.items()),
        step.peak(always, built.trainable_bytes),
        schedule,
        step_work(built.runnable, args, batches[0], batches[1], fresh),
        utilization,
        tuple(_assumptions(args, model, task, safety if replayed else None, schedule, utilization)),
    )


def _trained_adapter(name: str) -> PeftConfig:
    try:
        config = PeftConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`adapter_name_or_path={name!r}` has no adapter_config.json that can be reached. Check the name."
        ) from error
    config.inference_mode = False
    return config


def _dtype(name: str | None, config: Any) -> torch.dtype:
    if name in (None, "auto"):
        return config.dtype or torch.float32
    return getattr(torch, str(name))


def _activations(
    built: ModelPlan, args: SafeSFTConfig, task: Rows, safety: Rows, replayed: int
) -> tuple[Activations, int]:
    """Of the longest batch, with its replayed rows, and its padded tokens."""
    rows = args.per_device_train_batch_size
    autocast = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None

    def count(rows: int, width: int) -> Activations:
        return count_activations(
            built.runnable, rows, width, autocast=autocast, checkpointing=args.gradient_checkpointing
        )

    if not replayed:
        return count(rows, task.longest), rows * task.longest
    row = TokenizedRow([0] * safety.longest, [0] * safety.longest)
    replay = ReplayBatch.of([row], [0] * replayed, torch.device("cpu"))
    if joining_is_cheaper((rows, task.longest), replay):
        width = max(task.longest, safety.longest)
        return count(rows + replayed, width), (rows + replayed) * width
    ours, theirs = count(rows, task.longest), count(replayed, safety.longest)
    both = Activations(
        ours.kept + theirs.kept,
        ours.checkpoints + theirs.checkpoints,
        max(ours.largest_layer, theirs.largest_layer),
        ours.widest,
        ours.state_bytes,
        ours.layers,
    )
    return both, max(rows * task.longest, replayed * safety.longest)


def _steps(args: SafeSFTConfig, task: Rows, devices: int) -> int | None:
    if args.max_steps > 0:
        return args.max_steps
    if task.rows is None:
        return None
    batches = math.ceil(task.rows / (args.per_device_train_batch_size * devices))
    return math.ceil(math.ceil(batches / args.gradient_accumulation_steps) * args.num_train_epochs)


def _assumptions(
    args: SafeSFTConfig,
    model: ModelConfig,
    task: Rows,
    safety: Rows | None,
    schedule: Schedule,
    utilization: float,
) -> list[str]:
    notes = [task.note, safety.note if safety is not None else ""]
    notes.append(f"times: {utilization:.0%} of a GPU's peak; without saving, and without measuring attack success")
    if args.gradient_accumulation_steps == 1:
        notes.append("peak: activations make way for gradients as these come, so it is less than the sum")
    notes.append("memory: tensors alone; 1 GiB is kept for driver and fragmentation when GPUs are compared")
    notes.append(
        "eager attention keeps its matrices"
        if model.attn_implementation == "eager"
        else "fused attention (SDPA, Flash)"
    )
    if task.tokens < task.longest:
        notes.append("operations: mean row lengths, padding not counted; memory: the longest row")
    if args.packing:
        notes.append("packing is counted as full rows")
    if model.load_in_8bit:
        notes.append("8-bit: the inputs that its matrix products keep are not counted")
    if schedule.steps is None:
        notes.append("steps: not known, because the data is not at hand; give --rows")
    if schedule.devices > 1:
        notes.append(f"memory is that of each of {schedule.devices} devices, with the whole model on each (DDP)")
    return [note for note in notes if note]
