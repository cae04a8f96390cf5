"""`SafeSFTTrainer`: TRL's `SFTTrainer` with a safety term in its loss."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor, nn
from transformers import TrainingArguments

from ..config.safe_sft_config import SafeSFTConfig
from ..data import TokenizedRow
from ..hub.facts import RunFacts
from ..methods import Preparation, SafetyMethod, StepContext
from ..models.finite import require_finite
from ..replay import Teacher
from .alternating import AlternatingTrainer
from .callbacks import MethodsCallback, SafetyEvalCallback
from .checkpoints import Asked, resumable
from .compatibility import check_compatibility, must_join
from .drop_in import argument_of, check_callbacks, complete_config, signature_with
from .facts import run_facts
from .gradient_watch import watch_gradients
from .merge_after import merge_with_aligned
from .method_states import load_method_states, method_states, save_method_states
from .micro_steps import MICRO_STEP, MicroStep, mark_micro_steps
from .origin import Origin, warn_of_lost_protection
from .outputs import check_output
from .safety_set import SafetySet
from .signals import saving_on_signal
from .step_states import ReplayedRows, StepStates
from .task_losses import task_losses
from .task_refusals import task_prompts, task_refusals
from .task_rows import check_rows, check_token_ids, naming_refused_rows
from .terms import SafetyTerms

logger = get_logger(__name__)


class SafeSFTTrainer(AlternatingTrainer):
    """Fine-tune as `SFTTrainer` does, without forgetting the safety alignment.

    Takes every argument of `SFTTrainer`, positional or by keyword. With `safety_method="none"` it behaves as
    `SFTTrainer` bit for bit.

    Args:
        model: the aligned model, whose behaviour is protected; given as for `SFTTrainer`.
        args: a `SafeSFTConfig`; an `SFTConfig` or `TrainingArguments` is completed with the default safety fields.
        safety_dataset: the safety rows: `prompt` + `completion`, `messages`, or `prompt` alone (answered once by the
            aligned model). None means the package's built-in prompts.

    Raises:
        ValueError: when the safety method clashes with another setting; raised before anything is trained.

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
        check_callbacks(argument_of("callbacks", model, config, *positional, **kwargs))
        check_output(config, model)
        self._safety_set = SafetySet.of(safety_dataset, config)
        dataset = argument_of("train_dataset", model, config, *positional, **kwargs)
        if argument_of("formatting_func", model, config, *positional, **kwargs) is None:
            check_rows(config, dataset)
        self._task_prompts = task_prompts(dataset) if config.safety_from_task else []
        self._terms = SafetyTerms()
        with naming_refused_rows(dataset, argument_of("processing_class", model, config, *positional, **kwargs)):
            super().__init__(model, config, *positional, **kwargs)
        self._terms = SafetyTerms.of(self.args)
        self._micro_step: MicroStep | None = None
        check_compatibility(self, self._methods)
        check_token_ids(self)
        if self._terms:
            require_finite(self.model, "the aligned model", "Load it in another dtype, or take another one.")
            self._origin = Origin.of(self.model, self.args, self.train_dataset, self._safety_set.digest)
        if safety_dataset is not None and not config.reads_safety_rows:
            logger.warning(f"`safety_dataset` is not used by `safety_method='{self.args.safety_method}'`.")
        self._tokenized_rows = cache(self._tokenize)
        self._states = self._prepare_states()
        self._terms.prepare(self._preparation())
        self.add_callback(MethodsCallback(lambda model: self._terms.after_step(model, self.accelerator)))
        self._watch = watch_gradients(self)
        if self._terms:
            self.add_callback(self._terms.guard)
            self.add_callback(self._watch)
        if self.args.measures_in_training:
            # First, so that early stopping finds the attack success rate among an evaluation's metrics.
            self.callback_handler.callbacks.insert(0, SafetyEvalCallback.of(self, self.args))
        self._is_deployed = False

    @property
    def teacher(self) -> Teacher | None:
        """Where the aligned model's outputs on replayed rows come from; None when no method reads them."""
        return None if self._states is None else self._states.teacher

    @property
    def _methods(self) -> list[SafetyMethod]:
        return self._terms.methods

    def _tokenize(self) -> list[TokenizedRow]:
        with self.accelerator.autocast():
            return self._safety_set.tokenize(self.model, self.processing_class, self.args)

    def _preparation(self) -> Preparation:
        setup = Preparation(self.model, self.args, self._tokenized_rows, self._tokenizer, self.accelerator.autocast)
        states = self._states
        return setup if states is None else replace(setup, aligned_states=lambda: states.aligned_states(self.model))

    def _prepare_states(self) -> StepStates | None:
        rows = ReplayedRows()
        if self._terms.replay:
            with self.accelerator.autocast():
                refused = task_refusals(self.model, self.processing_class, self._task_prompts, self.args)
            rows = ReplayedRows.cut(self._tokenized_rows(), refused, self.args.replayed_tokens)
        elif not any(method.needs_task_states for method in self._methods):
            return None
        setup = (self.model, self.args, self.accelerator, self._methods, rows, self._tokenizer)
        states = StepStates(*setup, must_join=must_join(self))
        states.task_losses = task_losses(self, states.tap)
        return states

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple:
        """Mark each micro-batch with its place in the optimizer step."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._terms:
            mark_micro_steps(batches, self.state.global_step, self.accelerator, count_rows=self._terms.replay)
        return batches, num_items

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Take one micro-step as `SFTTrainer` does; after the last one of a step, a method may turn the gradient."""
        self._micro_step = micro_step = inputs.pop(MICRO_STEP, None)  # which is no input of a model
        try:
            loss = super().training_step(model, inputs, *args, **kwargs)
        finally:
            self._micro_step = None
        if micro_step is not None and self.accelerator.sync_gradients:
            loss = loss + self._terms.turn_gradient(self.model, micro_step, self._states, self.accelerator)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(*args, **kwargs)
        scaled = self.accelerator.scaler is not None  # whose overflows are skipped steps, and nothing to stop for
        self._terms.guard.saw_norm(None if scaled else norm)
        self._watch.saw_norm(norm)
        return norm

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
            inputs: a batch of task rows.
            return_outputs: whether to return the model's outputs, too.
            num_items_in_batch: number of supervised task tokens of the optimizer step.

        Returns:
            The loss, or `(loss, outputs)`.
        """
        micro_step: MicroStep | None = inputs.pop(MICRO_STEP, None) or self._micro_step
        if micro_step is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        divisor = self._loss_divisor(num_items_in_batch)
        if self._states is None:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            alternates = self._alternation is not None and self._alternation.is_safety(micro_step.step)
            step = StepContext(micro_step.index == 0, on_safety_rows=alternates)
        else:
            batch = dict(inputs)  # label smoothing takes the labels out
            replay = self._states.replay_batch(micro_step)
            joined = not self.aux_loss_enabled and self._states.joins(inputs, replay, must_join(self))
            with self._states.listening(replay if joined else None):
                result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            task = self._states.of_task(self.model, batch)
            replayed = self._states.of_replay(self.model, replay, joined) if replay is not None else None
            step = self._states.context(micro_step, replayed, task, num_items_in_batch, divisor)
        task_loss, *outputs = result if return_outputs else (result,)
        self._terms.saw_task(task_loss, step, divisor)
        safety_loss = self._terms.loss(step, task_loss.device)
        if self._watch.is_due:
            if self._states is not None:
                step = self._states.apart(self.model, micro_step, batch, num_items_in_batch, divisor)
            self._watch.saw_term(self._terms.loss_to_look_at(step, task_loss.device), self.model)
        loss = task_loss + safety_loss * divisor
        return (loss, *outputs) if return_outputs else loss

    def _loss_divisor(self, num_items: Tensor | int | None) -> int:
        """Return what `Trainer` will divide the loss by: 1 where the loss is already a mean over the step."""
        divided = (num_items is None or not self.model_accepts_loss_kwargs) and self.compute_loss_func is None
        return self.current_gradient_accumulation_steps if divided else 1

    @contextmanager
    def deployed(self) -> Iterator[None]:
        """Give `model` the weights to save and measure, inside this context; only `ema` changes any."""
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
        """Save the weights to be used; the checkpoints that `Trainer` itself saves keep the weights in training."""
        with nullcontext() if _internal_call else self.deployed():
            if self._terms:
                require_finite(self.model, "the tuned model", "It is not saved.")
            super().save_model(output_dir, _internal_call)

    @property
    def facts(self) -> RunFacts:
        """Return the facts of the run, for the model card."""
        rows = self._safety_set.facts if self.args.reads_safety_rows else None
        return run_facts(
            self.args, self._terms, model=self.model, safety_rows=rows, teacher=self.teacher, card=self.card
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate the task loss of the weights to be used (with `ema_evaluate: false`, of those in training)."""
        with self.deployed() if self.args.ema_evaluate else nullcontext():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict with the weights to be used."""
        with self.deployed():
            return super().predict(*args, **kwargs)

    def train(self, resume_from_checkpoint: Asked = None, *args: Any, **kwargs: Any) -> Any:
        """Train as `SFTTrainer` does; then, where `merge_after_training` asks for it, save and merge.

        Args:
            resume_from_checkpoint: a folder, or True for the newest complete checkpoint in `output_dir`.
            args, kwargs: further arguments of `SFTTrainer.train`.

        Raises:
            NotFinite: when a loss or a gradient is not finite, before the weights are.
            MissingTerm: when a safety term is not computed.
            ValueError: when the checkpoint is not complete, or its run had another aligned model.
        """
        self._terms.forget()
        with saving_on_signal(self), self._states or nullcontext():
            result = super().train(resumable(resume_from_checkpoint, str(self.args.output_dir)), *args, **kwargs)
        self._terms.say_what_broke()
        if self.args.merge_after_training is not None:
            with self.deployed():
                self.save_model(_internal_call=True)  # which does not push
            merge_with_aligned(self)
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as `SFTTrainer` does, with `task_loss`, `safety_loss` and the terms apart."""
        if "loss" in logs and self._terms:
            logs.update(self._terms.logs(self.accelerator))
            logs.update(self._watch.logs())
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = os.path.join(self._get_output_dir(trial=trial), f"checkpoint-{self.state.global_step}")
        states = method_states(self._terms.stateful)
        if self._terms and self.args.should_save:
            # Before all else: a checkpoint that is complete for `Trainer`, which writes its state last, has ours.
            self._origin.save(folder)
            save_method_states(states, folder)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._terms:
            self._origin.check(resume_from_checkpoint)
        else:
            warn_of_lost_protection(resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_method_states(self._terms.stateful, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        load_method_states(self._terms.stateful, str(self.state.best_model_checkpoint))


SafeSFTTrainer.__init__.__signature__ = signature_with(SafeSFTTrainer, "safety_dataset")  # type: ignore[attr-defined]
