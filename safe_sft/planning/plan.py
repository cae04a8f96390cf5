"""The plan of a run: everything that its configuration alone says about memory, tokens and time."""

from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import torch
from peft import PeftConfig
from trl import ModelConfig, get_peft_config, get_quantization_config

from ..config.safe_sft_config import SafeSFTConfig
from .compute import Work, step_work
from .configs import model_config
from .data import Rows
from .device import device_memory
from .gpus import GPU, OVERHEAD_BYTES
from .memory import Item
from .model import ModelPlan, plan_model
from .schedule import Schedule, make_schedule, step_batches
from .teacher import computed_rows


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes:
        model: name of the model.
        method: `safety_method`.
        parameters: number of parameters of the model.
        trainable: number of parameters that are trained.
        items: what a device holds, and what is kept elsewhere.
        device_bytes: most bytes of tensors on one device at a time.
        schedule: rows, tokens and steps.
        work: floating-point operations of a step on one device.
        utilization: share of a GPU's peak that times assume.
        assumptions: sentences that say what was assumed.
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
        """Return the time of an optimizer step, in seconds."""
        return self.work.total / (gpu.flops * self.utilization)

    def hours(self, gpu: GPU) -> float | None:
        """Return the hours of the run, without measuring and saving; None when its steps are unknown."""
        return None if self.schedule.steps is None else self.schedule.steps * self.seconds_per_step(gpu) / 3600

    def to_dict(self, gpus: list[GPU]) -> dict[str, Any]:
        """Return everything as plain values, with the times on `gpus`, in bytes, seconds and hours."""
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
        args: the run's `SafeSFTConfig`.
        model: names of the model and the adapter.
        task: the rows of the task.
        safety: the rows to replay.
        utilization: share of a GPU's peak that times assume.
        devices: number of devices that train together, each with the whole model.
        adapter: folder or Hub name of an adapter that is trained further.

    Raises:
        ValueError: when the model is not known, or the settings do not go together.
    """
    built, fresh = _model(model, adapter)
    memory = device_memory(built, args, task, safety, fresh=fresh)
    batches = step_batches(args, task, safety)
    schedule = make_schedule(args, task, batches, devices)
    computed = computed_rows(args, schedule, safety, memory.state_bytes, fresh)
    return Plan(
        model=str(model.model_name_or_path),
        method=args.safety_method,
        parameters=built.parameters,
        trainable=built.trainable_parameters,
        items=memory.items,
        device_bytes=memory.peak,
        schedule=schedule,
        work=step_work(built.runnable, args, *batches, computed),
        utilization=utilization,
        assumptions=tuple(_assumptions(args, model, task, safety, schedule, utilization)),
    )


def _model(model: ModelConfig, adapter: str | None) -> tuple[ModelPlan, bool]:
    """Build the model without its weights; returns it and whether its adapter is new."""
    name = model.model_name_or_path
    if name is None:
        raise ValueError("`model_name_or_path` is missing. Set it in the recipe.")
    config = model_config(name, model.model_revision)
    peft_config = get_peft_config(model) if adapter is None else _trained_adapter(adapter)
    wanted = (
        config,
        _dtype(model.dtype, config),
        get_quantization_config(model),
        peft_config,
        model.attn_implementation,
    )
    built = _built(_Wanted(f"{config.to_json_string(use_diff=False)} {wanted[1:]}", wanted))
    return built, adapter is None and peft_config is not None


@dataclass(frozen=True)
class _Wanted:
    """A model to plan. Two that read the same are the same."""

    text: str
    arguments: tuple[Any, ...] = field(compare=False)


@lru_cache(maxsize=2)  # one model is planned in many sizes of a step, and in all runs of an experiment
def _built(wanted: _Wanted) -> ModelPlan:
    return plan_model(*wanted.arguments)


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


def _assumptions(
    args: SafeSFTConfig,
    model: ModelConfig,
    task: Rows,
    safety: Rows,
    schedule: Schedule,
    utilization: float,
) -> list[str]:
    notes = [task.note, safety.note if schedule.replay_rows else ""]
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
