"""`SafeSFTTrainer`: TRL's `SFTTrainer` with a safety term in its loss."""

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields
from functools import cache
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor, nn
from transformers import TrainingArguments
from trl import SFTTrainer

from ..config.safe_sft_config import SafeSFTConfig
from ..data import TokenizedRow
from ..hub.facts import RunFacts
from ..merging import merge
from ..methods import Preparation, SafetyMethod, StepContext, TokenStates
from ..replay import Teacher
from .callbacks import MethodsCallback, SafetyEvalCallback
from .compatibility import aligned_source, check_compatibility, must_join
from .facts import run_facts
from .hub_trainer import HubTrainer
from .method_states import load_method_states, method_states, save_method_states
from .safety_set import SafetySet
from .step_means import StepMeans
from .step_states import MicroStep, StepStates

logger = get_logger(__name__)

_MICRO_STEP = "safety_micro_step"


class SafeSFTTrainer(HubTrainer):
    """Fine-tune as `SFTTrainer` does, without forgetting the safety alignment.

    Takes every argument of `SFTTrainer`, positional or by keyword. With `safety_method="none"` it behaves as
    `SFTTrainer` bit for bit.

    Args:
        model: as for `SFTTrainer`; it is the aligned model, the one whose behaviour is protected.
        args: a `SafeSFTConfig`; an `SFTConfig` or `TrainingArguments` is completed with the default safety fields.
        safety_dataset: rows of `prompt` + `completion`, `messages`, or `prompt` alone (answered once by the aligned
            model). None means the package's built-in prompts.

    Raises:
        ValueError: when the safety method clashes with another setting; before anything is trained.

    Example:
        >>> trainer = SafeSFTTrainer("Qwen/Qwen3-0.6B", train_dataset=dataset, peft_config=LoraConfig())
        >>> trainer.train()
    """

    _tag_names = ["trl", "sft", "safe-sft"]  # noqa: RUF012 (a list in TRL)
    _name = "SafeSFT"
    args: SafeSFTConfig
    model: Any

    def __init__(
        self,
        model: Any,
        args: TrainingArguments | None = None,
        *positional: Any,
        safety_dataset: Iterable[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ):
        config = complete_config(args, model)
        self._safety_set = SafetySet.read(safety_dataset) if config.reads_safety_rows else SafetySet(())
        self._terms: list[tuple[SafetyMethod, float]] = []
        super().__init__(model, config, *positional, **kwargs)
        self._terms = [(method(), weight) for method, weight in self.args.safety_terms]
        self._step_means = StepMeans()
        check_compatibility(self, self._methods)
        if safety_dataset is not None and not config.reads_safety_rows:
            logger.warning(f"`safety_dataset` is not used by `safety_method='{self.args.safety_method}'`.")
        self._tokenized_rows = cache(self._tokenize)
        self._states = self._prepare_states()
        for method in self._methods:
            method.prepare(
                Preparation(self.model, self.args, self._tokenized_rows, self._tokenizer, self.accelerator.autocast)
            )
        self.add_callback(MethodsCallback(self._methods))
        if self.args.measures_in_training:
            # First, so that early stopping finds the attack success rate among an evaluation's metrics.
            self.callback_handler.callbacks.insert(0, self._safety_evaluation())
        self._is_deployed = False

    def _safety_evaluation(self) -> SafetyEvalCallback:
        args = self.args
        return SafetyEvalCallback(
            self,
            steps=args.safety_eval_steps,
            max_asr=args.safety_max_asr,
            size=args.safety_eval_size,
            max_new_tokens=args.safety_eval_max_new_tokens,
            batch_size=args.safety_eval_batch_size,
        )

    @property
    def teacher(self) -> Teacher | None:
        """Where the aligned model's outputs on replayed rows come from; None when no method reads them."""
        return None if self._states is None else self._states.teacher

    @property
    def _methods(self) -> list[SafetyMethod]:
        return [method for method, _ in self._terms]

    def _tokenize(self) -> list[TokenizedRow]:
        with self.accelerator.autocast():
            return self._safety_set.tokenize(self.model, self._tokenizer, self.args)

    def _prepare_states(self) -> StepStates | None:
        replays = any(method.needs_replay for method in self._methods)
        rows = self._tokenized_rows() if replays else []
        if not replays and not any(method.needs_task_states for method in self._methods):
            return None
        return StepStates(self.model, self.args, self.accelerator, self._methods, rows, self._tokenizer)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple:
        """Mark each micro-batch with its place in the optimizer step."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._terms:
            for index, batch in enumerate(batches):
                batch[_MICRO_STEP] = MicroStep(self.state.global_step, index, len(batches))
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """TRL's loss on the task rows, plus, in training, the weighted safety terms.

        Args:
            model: the model, wrapped or not.
            inputs: a batch of the task.
            return_outputs: as in `SFTTrainer`.
            num_items_in_batch: supervised task tokens of the optimizer step.

        Returns:
            The loss, or `(loss, outputs)`.
        """
        micro_step: MicroStep | None = inputs.pop(_MICRO_STEP, None)
        if micro_step is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        divisor = self._loss_divisor(num_items_in_batch)
        if self._states is None:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            step = StepContext(micro_step.index == 0)
        else:
            replay = self._states.replay_batch(micro_step)
            joined = not self.aux_loss_enabled and self._states.joins(inputs, replay, must_join(self))
            with self._states.listening(replay if joined else None):
                result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            task = self._states.of_task(self.model, inputs)
            replayed = self._states.of_replay(self.model, replay, joined) if replay is not None else None
            step = self._states.context(
                micro_step, replayed, task, self._task_share(task, num_items_in_batch, divisor)
            )
        task_loss, *outputs = result if return_outputs else (result,)
        self._step_means.add("task_loss", task_loss / divisor, begins_step=step.first_micro_step)
        loss = task_loss + self._safety_loss(step, task_loss.device) * divisor
        return (loss, *outputs) if return_outputs else loss

    def _loss_divisor(self, num_items: Tensor | int | None) -> int:
        """What `Trainer` will divide the loss by: the accumulation steps, where it is not normalised over the step."""
        divided = (num_items is None or not self.model_accepts_loss_kwargs) and self.compute_loss_func is None
        return self.current_gradient_accumulation_steps if divided else 1

    def _task_share(self, task: TokenStates | None, num_items: Tensor | int | None, divisor: int) -> float | Tensor:
        """What one supervised task token counts for: as in TRL's own loss."""
        if task is None:
            return 0.0
        if num_items is None:
            return 1 / (max(1, task.targets.numel()) * divisor)
        share = (self.accelerator.num_processes if self.args.average_tokens_across_devices else 1) / num_items
        return share.to(task.hidden.device) if isinstance(share, Tensor) else share

    def _safety_loss(self, step: StepContext, device: torch.device) -> Tensor:
        """The weighted sum of the terms, normalised over the optimizer step; also keeps what is logged."""
        total = torch.zeros((), device=device)
        for method, weight in self._terms:
            value = method.loss(step)
            if value is not None:
                total = total + weight * value.to(device)
                self._step_means.add(f"safety/{method.name}", value)
        self._step_means.add("safety_loss", total)
        return total

    @contextmanager
    def deployed(self) -> Iterator[None]:
        """Inside, `model` has the weights that are to be saved and measured; the same but for `ema`."""
        if self._is_deployed:
            yield
            return
        with ExitStack() as stack:
            for method in self._methods:
                stack.enter_context(method.deployed(self.model))
            self._is_deployed = True
            stack.callback(setattr, self, "_is_deployed", False)
            yield

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model to be used; the checkpoints that `Trainer` itself saves keep the weights in training."""
        with nullcontext() if _internal_call else self.deployed():
            super().save_model(output_dir, _internal_call)

    @property
    def facts(self) -> RunFacts:
        """How the model is made: what its card says."""
        return run_facts(
            self.args,
            self._terms,
            model=self.model,
            safety_rows=self._safety_set.facts if self.args.reads_safety_rows else None,
            teacher=self.teacher,
            card=self.card,
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The task loss of the model to be used (with `ema_evaluate: false`, of the weights in training)."""
        with self.deployed() if self.args.ema_evaluate else nullcontext():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """The predictions of the model to be used."""
        with self.deployed():
            return super().predict(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `SFTTrainer` does; then, where `merge_after_training` asks for it, save and merge."""
        self._step_means = StepMeans()
        result = super().train(*args, **kwargs)
        if self.args.merge_after_training is not None:
            self._merge()
        return result

    def _merge(self) -> None:
        """Write the merge of the aligned and the tuned model to `merged_dir`."""
        args = self.args
        with self.deployed():
            self.save_model(_internal_call=True)  # which does not push
        if self.is_world_process_zero():
            merge(
                aligned_source(self.model),
                str(args.output_dir),
                str(args.merge_after_training),
                args.merge_weight,
                args.merged_dir,
                overwrite=True,
            )
        self.accelerator.wait_for_everyone()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as `SFTTrainer` does, with `task_loss`, `safety_loss` and the terms apart."""
        if "loss" in logs and self._terms:
            logs.update(self._step_means.flush(self.accelerator))
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        states = method_states(self._methods)
        if self.args.should_save:
            folder = self._get_output_dir(trial=trial)
            save_method_states(states, os.path.join(folder, f"checkpoint-{self.state.global_step}"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_method_states(self._methods, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        load_method_states(self._methods, str(self.state.best_model_checkpoint))


def complete_config(args: TrainingArguments | None, model: Any) -> SafeSFTConfig:
    """`args` as a `SafeSFTConfig`: the same values, and the defaults of the safety fields."""
    if isinstance(args, SafeSFTConfig):
        return args
    if args is None:
        name = model if isinstance(model, str) else model.config._name_or_path
        return SafeSFTConfig(f"{name.rstrip('/').split('/')[-1]}-SFT")
    # Not `to_dict`, which masks every field that ends in `_token`.
    return SafeSFTConfig(**{field.name: getattr(args, field.name) for field in fields(args) if field.init})


def _signature() -> inspect.Signature:
    """`SFTTrainer`'s own signature with `safety_dataset`, for `help()` and editors."""
    theirs = inspect.signature(SFTTrainer.__init__)
    ours = inspect.signature(SafeSFTTrainer.__init__).parameters["safety_dataset"]
    return theirs.replace(parameters=[*theirs.parameters.values(), ours])


SafeSFTTrainer.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
