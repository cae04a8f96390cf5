"""Collects the hidden states of replayed and task rows, of the model and of the aligned model, for a step's terms."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..config.safe_sft_config import SafeSFTConfig
from ..data import TokenizedRow
from ..data.batch import places_in_answers
from ..data.subset import evenly_spread
from ..methods import SafetyMethod, StepContext, TokenStates
from ..models.modes import placed, without_dropout
from ..models.parts import LogitHead, backbone
from ..replay import HiddenStateTap, OnlineTeacher, ReplayBatch, ReplaySchedule, Teacher, deal, joining_is_cheaper
from ..replay.dry_run import joinable_layouts
from ..replay.joint import batch_layout
from .micro_steps import MicroStep
from .task_losses import TaskLosses
from .teacher import make_teacher


@dataclass(frozen=True)
class ReplayedRows:
    """The rows that are replayed, as far as they are replayed.

    Attributes:
        given: the safety rows; empty when no method replays.
        from_task: requests of the task that the aligned model refuses, with its refusals.
    """

    given: Sequence[TokenizedRow] = ()
    from_task: Sequence[TokenizedRow] = ()

    @classmethod
    def cut(
        cls, given: Sequence[TokenizedRow], from_task: Sequence[TokenizedRow], tokens: int | None
    ) -> "ReplayedRows":
        """Keep the first `tokens` tokens of each answer; all of them for None."""
        return cls(*([row.beginning(tokens) for row in rows] for rows in (given, from_task)))


class StepStates:
    """Collects the hidden states of each micro-step from the model.

    Args:
        model: the aligned model, on its device, not yet wrapped for distribution.
        args: the trainer's `SafeSFTConfig`.
        accelerator: the trainer's accelerator.
        methods: the safety methods that use the states.
        rows: the rows that are replayed.
        tokenizer: the model's tokenizer, with a padding token.
        must_join: whether replayed rows cannot take a forward of their own, because every rank must run the same ones.

    Raises:
        ValueError: when a forward of the model does not show its hidden states; found out before training.
    """

    def __init__(
        self,
        model: Any,
        args: SafeSFTConfig,
        accelerator: Accelerator,
        methods: Sequence[SafetyMethod],
        rows: ReplayedRows,
        tokenizer: PreTrainedTokenizerBase,
        must_join: bool = False,
    ):
        self._args, self._accelerator = args, accelerator
        self._rows = [*rows.given, *rows.from_task]
        self._watches_task = any(method.needs_task_states for method in methods)
        self._beside_task = any(method.needs_replay and not method.projects for method in methods)
        self.tap = HiddenStateTap(backbone(model), tokenizer.pad_token_id or 0)
        self._in_step, self._joinable = must_join, {"padded", "flattened"}
        if _runs_here(model, accelerator):
            with accelerator.autocast():
                self._joinable = joinable_layouts(self.tap, model, batch_kind(args) if must_join else None)
        self._online = OnlineTeacher(self.tap)
        head = LogitHead.of(model)
        # A head that is not trained is the aligned model's at every step.
        self._teacher_head = head.frozen_copy() if head.trained else None
        self.schedule: ReplaySchedule | None = None
        self.teacher: Teacher | None = None
        self.task_losses: TaskLosses | None = None
        self._everyone: list[list[int]] | None = None
        if self._rows:
            self.schedule = ReplaySchedule(
                tuple(row.supervised_tokens for row in self._rows),
                ratio=args.replay_ratio,
                seed=args.seed,
                from_task=len(rows.from_task),
            )
        if any(method.needs_teacher for method in methods):
            with accelerator.autocast():
                self.teacher = make_teacher(model, tokenizer, self.tap, self._rows, args)

    @property
    def rows(self) -> Sequence[TokenizedRow]:
        """The rows that are replayed, as far as they are."""
        return self._rows

    def __enter__(self) -> "StepStates":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.tap.close()

    def replay_batch(self, micro_step: MicroStep) -> ReplayBatch | None:
        """Return the rows that this rank replays beside the task's, or None when it replays none.

        Where every rank must run the same forwards, a rank whose turn it is not replays a row without weight.
        """
        return self._replay_batch(micro_step) if self._beside_task else None

    def _replay_batch(self, micro_step: MicroStep) -> ReplayBatch | None:
        self._everyone = None
        if self.schedule is None:
            return None
        rows = self.schedule.rows(micro_step.step, micro_step.task_rows)
        dealt = self._dealt(rows, micro_step)
        if self._in_step and any(dealt):
            dealt = self._everyone = [mine or rows[:1] for mine in dealt]
        mine = dealt[self._accelerator.process_index]
        return ReplayBatch.of(self._rows, mine, self._accelerator.device) if mine else None

    def _dealt(self, rows: Sequence[int], micro_step: MicroStep) -> list[list[int]]:
        return deal(rows, micro_step.index, micro_step.count, self._accelerator.num_processes)

    @torch.no_grad()
    def aligned_states(self, model: Any, limit: int = 64) -> TokenStates:
        """Return the states of `model`, the aligned one before training, on at most `limit` rows, evenly spread."""
        chosen, size = evenly_spread(range(len(self._rows)), limit), self._args.safety_eval_batch_size
        batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        device = self._args.device
        parts = [ReplayBatch.of(self._rows, rows, device) for rows in batches]
        with placed(model, device), without_dropout(model), self._accelerator.autocast():
            hidden = torch.cat([self.tap.forward_rows(model, part) for part in parts])
        return self._states(model, hidden, torch.cat([part.targets for part in parts]), lambda: hidden)

    def joins(self, inputs: Mapping[str, Any], replay: ReplayBatch | None, must_join: bool) -> bool:
        """Return whether `replay` joins `inputs` in one forward."""
        layout = batch_layout(inputs)
        if replay is None or layout not in self._joinable:
            return False
        if layout == "flattened" or must_join:
            return True
        return joining_is_cheaper(tuple(inputs["input_ids"].shape), replay, self._accelerator.device.type)

    def listening(self, replay: ReplayBatch | None) -> AbstractContextManager[None]:
        """Collect the states of the task's forward inside this context, and those of `replay` when it joins."""
        return self.tap.listening(replay, task=self._watches_task)

    def of_replay(self, model: Any, replay: ReplayBatch, joined: bool) -> TokenStates:
        """Return the states that predict the replayed rows' answers."""
        hidden = self.tap.replay_hidden() if joined else self.tap.forward_rows(model, replay)
        return self._states(model, hidden, replay.targets, lambda: self._teacher_hidden(model, replay))

    def of_task(self, model: Any, inputs: Mapping[str, Any], apart: bool = False) -> TokenStates | None:
        """Return the states that predict the task rows' supervised tokens, of the task's forward or of one `apart`."""
        if not self._watches_task:
            return None
        labels = inputs["labels"]
        rows, positions = (labels[:, 1:] != -100).nonzero(as_tuple=True)
        index = rows * labels.size(1) + positions
        batch = {key: value for key, value in inputs.items() if key != "labels"}
        if apart:
            hidden = self.tap.forward(model, batch, index)
        else:
            states = self.tap.task_hidden()
            hidden = states.reshape(-1, states.size(-1)).index_select(0, index.to(states.device))
        targets = labels[rows, positions + 1]
        found = self._states(model, hidden, targets, lambda: self._online.task_hidden(model, batch, index))
        device = found.targets.device
        losses = None if self.task_losses is None else self.task_losses.of(inputs).to(device)
        return replace(found, places=places_in_answers(index).to(device), aligned_losses=losses)

    def apart(
        self,
        model: Any,
        micro_step: MicroStep,
        inputs: Mapping[str, Any],
        num_items: Tensor | int | None,
        divisor: int,
    ) -> StepContext:
        """Return what the methods see, from forwards apart from training, whose graph and random numbers stay alone.

        Args:
            model: the model in training.
            micro_step: the place of the batch.
            inputs: the batch of task rows, with labels.
            num_items: number of supervised task tokens of the optimizer step, as `Trainer` counts them.
            divisor: what `Trainer` will divide the loss by.
        """
        with self.own_random_numbers():
            replay = self.replay_batch(micro_step)
            replayed = None if replay is None else self.of_replay(model, replay, joined=False)
            task = self.of_task(model, inputs, apart=True)
        return self.context(micro_step, replayed, task, num_items, divisor)

    def replay_passes(self, micro_step: MicroStep) -> list[MicroStep]:
        """Return the passes in which a step's replayed rows run apart from the task's, a batch at a time.

        Every rank has the same passes; none where the step replays no row.
        """
        rows = 0 if self.schedule is None else len(self.schedule.rows(micro_step.step, micro_step.task_rows))
        count = math.ceil(math.ceil(rows / self._accelerator.num_processes) / self._args.per_device_train_batch_size)
        return [replace(micro_step, index=index, count=count) for index in range(count)]

    def replayed_apart(self, model: Any, replay_pass: MicroStep) -> StepContext | None:
        """Return what the methods see of one of `replay_passes`, from a forward of its own; None without a row."""
        replay = self._replay_batch(replay_pass)
        if replay is None:
            return None
        return self.context(replay_pass, self.of_replay(model, replay, joined=False), None, None, 1)

    @contextmanager
    def own_random_numbers(self) -> Iterator[None]:
        """Leave training's random numbers alone, whatever forwards inside this context draw."""
        device = self._accelerator.device
        devices, kind = ([], "cuda") if device.type == "cpu" else ([device], device.type)
        with torch.random.fork_rng(devices, device_type=kind):
            yield

    def context(
        self,
        micro_step: MicroStep,
        replay: TokenStates | None,
        task: TokenStates | None,
        num_items: Tensor | int | None,
        divisor: int,
    ) -> StepContext:
        """Return what the methods see. Ranks average their gradients, so each counts its tokens `world_size` times.

        Args:
            micro_step: the place of the batch.
            replay: the replayed rows' states.
            task: the task rows' states.
            num_items: number of supervised task tokens of the optimizer step, as `Trainer` counts them.
            divisor: what `Trainer` will divide the loss by.
        """
        task_share = self._task_share(task, num_items, divisor)
        return StepContext(micro_step.index == 0, replay, task, self._replay_share(micro_step), task_share)

    def _replay_share(self, micro_step: MicroStep) -> float:
        """Return the weight of one replayed token in the step's mean; 0 where this rank has no row of the step."""
        if self.schedule is None:
            return 0.0
        rows = self.schedule.rows(micro_step.step, micro_step.task_rows)
        if not self._dealt(rows, micro_step)[self._accelerator.process_index]:
            return 0.0
        return self._accelerator.num_processes * self.schedule.token_share(micro_step.step, micro_step.task_rows)

    def _task_share(self, task: TokenStates | None, num_items: Tensor | int | None, divisor: int) -> float | Tensor:
        """Return the weight of one supervised task token in the step's mean, as in TRL's own loss."""
        if task is None:
            return 0.0
        if num_items is None:
            return 1 / (max(1, task.targets.numel()) * divisor)
        ranks = self._accelerator.num_processes if self._args.average_tokens_across_devices else 1
        share = ranks / num_items
        return share.to(task.hidden.device) if isinstance(share, Tensor) else share

    def _teacher_hidden(self, model: Any, replay: ReplayBatch) -> Tensor:
        assert self.teacher is not None, "a method that reads the teacher says so in `needs_teacher`"
        return self.teacher.replayed(model, replay, self._everyone)

    def _states(self, model: Any, hidden: Tensor, targets: Tensor, teacher_hidden: Any) -> TokenStates:
        head = LogitHead.of(model)
        # The head of a model that is split over several GPUs can be on another than the last layer.
        device = head.weight.device if head.weight.device.type == hidden.device.type else hidden.device
        if self._teacher_head is not None:  # copied where the model was before FSDP or DeepSpeed moved it
            self._teacher_head = self._teacher_head.to(device)
        return TokenStates(
            hidden.to(device),
            targets.to(device),
            head,
            lambda: teacher_hidden().to(device),
            self._teacher_head or head,
            self._accelerator.autocast,
        )


def batch_kind(args: SafeSFTConfig) -> str:
    """Return the layout of the task's batches that `args` asks for, as `batch_layout` names it."""
    return "flattened" if args.packing or args.padding_free else "padded"


def _runs_here(model: Any, accelerator: Accelerator) -> bool:
    """Return whether the model can run now: whole, and on the device it trains on (as sharded ones are not yet)."""
    sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    return not sharded and all(p.device.type == accelerator.device.type for p in model.parameters())
