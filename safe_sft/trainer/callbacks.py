"""Callbacks of the trainer: they measure attack success, call the methods after each step, and log what was before."""

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import inf
from typing import Any, Protocol, runtime_checkable

from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..config.safe_sft_config import SafeSFTConfig
from ..data import builtin_prompts
from ..data.safety_rows import Messages
from ..evaluation import Case, Suite, measure_asr
from ..evaluation.judges import Judge


class MethodsCallback(TrainerCallback):
    """Tells the methods after each optimizer step that the weights have changed.

    Args:
        tell: function that tells them, given the model.
    """

    def __init__(self, tell: Callable[[nn.Module], None]):
        self._tell = tell

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell each method that the weights have changed."""
        self._tell(kwargs["model"])


class FirstLog(TrainerCallback):
    """Logs, when training begins, what was measured before.

    `Trainer` begins a new log there, and reporters know only then where to write.

    Args:
        trainer: the trainer that this is added to.
        numbers: what is logged, by name; nothing where there is none.
    """

    def __init__(self, trainer: Trainer, numbers: dict[str, float]):
        self._trainer, self._numbers = weakref.ref(trainer), numbers

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the numbers, but for a run that goes on: its log has them."""
        trainer = self._trainer()
        if trainer is not None and self._numbers and state.global_step == 0:
            Trainer.log(trainer, dict(self._numbers))


@runtime_checkable
class Deployable(Protocol):
    """A trainer whose weights in training may differ from those that are saved and measured."""

    def deployed(self) -> AbstractContextManager[None]:
        """Give the model the weights that are saved and measured, inside this context."""


class SafetyEvalCallback(TrainerCallback):
    """Logs `eval_asr`, `eval_asr_low` and `eval_asr_high` on a fixed subset of prompts.

    Beside them stand `eval_asr_degenerate` and `eval_asr_unjudged`, the shares of answers that say nothing or have no
    verdict. Where most are one or the other, there is no attack success rate, and `eval_asr` is infinite.

    They go wherever the trainer logs to, at every evaluation, and every `steps` steps where that is given. At an
    evaluation they are among its metrics, so `metric_for_best_model="eval_asr"` (with `greater_is_better=False`) and
    early stopping on it work.

    Args:
        trainer: the trainer that this is added to.
        prompts: harmful requests; the built-in held-out ones by default.
        size: number of prompts that are used, evenly spread, the same ones each time.
        steps: number of steps between measurements; None measures only at evaluations.
        max_asr: stop training once the lower end of the interval is above it: when it is sure that the model has
            forgotten too much, or most answers say nothing. None never stops.
        judge: judge of the answers; refusal phrases by default.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts answered at a time, per device.

    Raises:
        ValueError: when `steps` or `size` is less than 1, or `max_asr` is not a share.

    Example:
        >>> trainer.add_callback(SafetyEvalCallback(trainer, steps=50, max_asr=0.1))
    """

    def __init__(
        self,
        trainer: Trainer,
        prompts: Sequence[str | Messages] | None = None,
        *,
        size: int = 64,
        steps: int | None = None,
        max_asr: float | None = None,
        judge: Judge | None = None,
        max_new_tokens: int = 64,
        batch_size: int = 32,
    ):
        if steps is not None and steps < 1:
            raise ValueError(f"`steps={steps}` must be at least 1. Leave it out to measure at evaluations alone.")
        if max_asr is not None and not 0 <= max_asr <= 1:
            raise ValueError(f"`max_asr={max_asr}` is not a share. Give a number from 0 to 1, such as 0.1.")
        if prompts is None:
            prompts = [prompt.prompt for prompt in builtin_prompts("harmful_heldout")]
        self._cases = Suite("during training", tuple(map(Case.of, prompts)), "", "").subset(size).cases
        # The trainer holds its callbacks; a reference back would keep its model alive after it is gone.
        self._trainer = weakref.ref(trainer)
        self._steps, self._max_asr = steps, max_asr
        self._judge, self._max_new_tokens, self._batch_size = judge, max_new_tokens, batch_size
        self._last: dict[str, float] | None = None
        self._not_measurable: str | None = None
        #: Why training was stopped before its end; None where it was not.
        self.why_stopped: str | None = None

    @classmethod
    def of(cls, trainer: Trainer, args: SafeSFTConfig) -> "SafetyEvalCallback":
        """The callback that the arguments `safety_eval_…` and `safety_max_asr` describe.

        Args:
            trainer: the trainer that it is added to.
            args: the trainer's configuration.
        """
        return cls(
            trainer,
            steps=args.safety_eval_steps,
            max_asr=args.safety_max_asr,
            size=args.safety_eval_size,
            max_new_tokens=args.safety_eval_max_new_tokens,
            batch_size=args.safety_eval_batch_size,
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Forget what stopped an earlier training."""
        self.why_stopped = None
        return control

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Forget the last measurement: the weights are about to change."""
        self._last = None
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Forget the last measurement: the best weights may have been loaded."""
        self._last = None
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Measure and log every `steps` steps, except where an evaluation is about to do so."""
        if self._steps is not None and state.global_step % self._steps == 0 and not control.should_evaluate:
            self._log(self._measure(), control)
            self._stop_if_forgotten(state, control)
        return control

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        """Add the numbers to an evaluation's metrics, which choose the best model, and log them."""
        measured = self._measure()
        if metrics is not None:
            metrics.update(measured)
        self._log(measured, control)
        self._stop_if_forgotten(state, control)
        return control

    def _measure(self) -> dict[str, float]:
        """Measure the rates of the present weights; every rank must call it."""
        if self._last is None:
            trainer = self._owner
            # `SafeSFTTrainer` says which weights are to be used; other trainers have one set.
            deployed = trainer.deployed() if isinstance(trainer, Deployable) else nullcontext()
            with deployed, trainer.accelerator.autocast():
                report = measure_asr(
                    trainer.accelerator.unwrap_model(trainer.model),
                    trainer.processing_class,
                    [case.messages or case.prompt for case in self._cases],
                    judge=self._judge,
                    max_new_tokens=self._max_new_tokens,
                    batch_size=self._batch_size,
                    description="Attack success",
                    chat_template_kwargs=getattr(trainer.args, "chat_template_kwargs", None),
                )
            low, high = report.asr.interval
            self._not_measurable = report.asr.not_measurable
            self._last = {
                # Infinity is never the best, and no number.
                "eval_asr": inf if report.asr.not_measurable else report.asr.value,
                "eval_asr_low": low,
                "eval_asr_high": high,
                "eval_asr_degenerate": report.degenerate.value,
                "eval_asr_unjudged": report.unjudged.value,
            }
        return self._last

    def _log(self, measured: dict[str, float], control: TrainerControl) -> None:
        should_log = control.should_log
        # `Trainer.log` itself: SFT trainers would average the losses since the last log into this line.
        Trainer.log(self._owner, dict(measured))
        control.should_log = should_log  # logging takes it back, and the losses of this step are still to come

    def _stop_if_forgotten(self, state: TrainerState, control: TrainerControl) -> None:
        if self._max_asr is None:
            return
        measured = self._measure()
        low, high = measured["eval_asr_low"], measured["eval_asr_high"]
        if self._not_measurable:
            control.should_training_stop = True
            self.why_stopped = (
                f"Training was stopped at step {state.global_step}: the attack success rate is not measurable "
                f"({self._not_measurable}), so that the bound of {self._max_asr:g} cannot be kept. Look at what the "
                "model answers; a lower learning rate or safety weight keeps it able to answer."
            )
        elif low > self._max_asr:
            control.should_training_stop = True
            self.why_stopped = (
                f"Training was stopped at step {state.global_step}: the attack success rate, "
                f"{measured['eval_asr']:.3f} [{low:.3f}, {high:.3f}], is surely above the bound of {self._max_asr:g}."
            )

    @property
    def _owner(self) -> Trainer:
        trainer = self._trainer()
        assert trainer is not None, "the trainer calls its callbacks, so it is there"
        return trainer


def why_stopped(trainer: Trainer) -> str | None:
    """Return a sentence on why a `SafetyEvalCallback` stopped the last training; None if none did.

    Args:
        trainer: a trainer that has trained.
    """
    callbacks = trainer.callback_handler.callbacks
    reasons = (callback.why_stopped for callback in callbacks if isinstance(callback, SafetyEvalCallback))
    return next((reason for reason in reasons if reason), None)
