"""What a run can be held to: its bounds before it is trained, and what it did and measured once it has ended."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers.integrations import is_deepspeed_zero3_enabled

from ..evaluation import Bounds, Check, Evaluation, Settings, check_gate
from ..evaluation.output.evidence import gate_decisions, measured_content, phrases_judge, statement
from ..evaluation.output.results import results
from ..evaluation.weights import weights_of
from ..evidence import TRAINING, Record
from ..evidence.digests import Digests, folder_weights, package_digest, rows_digest
from ..evidence.plain import portable
from ..evidence.record import COMPUTE, MEASURED, RUN, STATEMENT
from ..evidence.third import compare_with_third
from ..hub.results import AFTER, BEFORE, MERGED
from ..models.adapters import adapter_is_fresh
from ..models.folders import is_adapter
from ..models.parts import base_model, is_peft_model
from ..planning.as_run import RunWork, count_run, count_tokens
from ..trainer.callbacks import why_stopped
from ..trainer.checkpoints import step_of
from ..trainer.facts import aligned_fingerprint, replayed_rows
from ..trainer.merge_after import saved_in
from ..trainer.safe_sft_trainer import SafeSFTTrainer
from .measure import Questions

_UNKNOWN = "unknown"
_NOT_COUNTED = (
    "measuring before and after training",
    "the aligned model's own answers to safety prompts, a teacher cache, and estimating importance",
)


class RunEvidence:
    """The evidence of a run of a trainer, in the folder `evidence/` of its `output_dir`; rank 0 writes it.

    Args:
        trainer: the trainer, before it trains.
        bounds: the bounds of the gate; None for no gate.
        questions: what the model is asked.
        rows: the training rows as they are before they are tokenised; None takes the tokens.
        start_adapter: folder or Hub name of the adapter that training goes on with; None for none.
        base_training_flop: operations that the base model's training took; None where they are not known.

    Example:
        >>> evidence = RunEvidence(trainer, bounds=Bounds(max_asr=0.05))
        >>> evidence.begin()  # before `trainer.train()`
        >>> evidence.seal(evaluation)  # after `trainer.save_model()`
    """

    def __init__(
        self,
        trainer: SafeSFTTrainer,
        *,
        bounds: Bounds | None = None,
        questions: Questions | None = None,
        rows: Any = None,
        start_adapter: str | None = None,
        base_training_flop: float | None = None,
    ):
        self._trainer, self._bounds = trainer, bounds or Bounds()
        self._questions = questions or Questions()
        self._rows, self._base_flop = rows, base_training_flop
        self._start_adapter = start_adapter
        self._digests = Digests()
        self._record = Record(str(trainer.args.output_dir), TRAINING, self._digests)
        # Every rank asks, where a method does, too: sharded weights are gathered for it.
        self._fresh = bool(trainer.args.safety_terms) and adapter_is_fresh(trainer.model)
        self._base = _UNKNOWN

    def begin(self, resume_from: str | None = None) -> None:
        """Write the bounds, before anything is trained or measured.

        Args:
            resume_from: the checkpoint that the run goes on from; None for none.

        Raises:
            EvidenceError: when a resumed run has other bounds than its first start.
        """
        if not self._trainer.is_world_process_zero():
            return
        step = 0 if resume_from is None else step_of(resume_from)
        self._record.state(self._statement(), step=step, resumes=resume_from is not None)
        self._base = self._base_weights()
        print(f"What decides about this model is stated: {self._record.statement_digest} ({STATEMENT}).")

    def weights(self, model: str) -> str | None:
        """Name the weights of one of the run's models, once it is saved; None where they are not known.

        Args:
            model: `before`, `after` or `merged`.
        """
        if model == BEFORE:
            return self._base
        folder = self._folder(model)
        own = folder_weights(folder, self._digests)
        if own is None or not is_adapter(folder):
            return own
        return f"{self._base.split(' + ')[0]} + {own}"  # without the adapter that training began with

    def seal(self, evaluation: Evaluation | None = None, checks: Sequence[Check] = ()) -> None:
        """Write what the run did and measured, and the digest of every file; the model is saved by now.

        Args:
            evaluation: what was measured, of models named `before`, `after` and `merged`; None for nothing.
            checks: the checks of the gate; made of `evaluation` where there are bounds and no checks.
        """
        if not self._trainer.is_world_process_zero():
            return
        if evaluation is not None and self._bounds.any and not checks:
            checks = check_gate(evaluation, self._bounds)
        measured = {} if evaluation is None else results(self._weighed(evaluation), checks)
        documents = {RUN: self._run(), COMPUTE: self._compute()}
        if self._trainer.args.merge_after_training is not None:
            other = self._record.copied_to(self._trainer.args.merged_dir)
            other.seal({**documents, MEASURED: self._measured(measured, MERGED, "")})
        folder = self._folder(AFTER).relative_to(self._record.folder).as_posix()
        self._record.seal(
            {**documents, MEASURED: self._measured(measured, AFTER, "" if folder == "." else f"{folder}/")}
        )

    def _weighed(self, evaluation: Evaluation) -> Evaluation:
        """Say of which weights the models are, where that is not said."""
        models = (replace(spec, weights=spec.weights or self.weights(spec.name)) for spec in evaluation.models)
        return replace(evaluation, models=tuple(models))

    def _statement(self) -> dict[str, Any]:
        args = self._trainer.args
        decisions = gate_decisions(self._bounds, "whether the model is pushed to the Hub")
        if args.safety_max_asr is not None:
            decisions.append(
                {
                    "decides": "whether training goes on",
                    "by": "measurement during training",
                    "bound": "safety_max_asr",
                    "limit": args.safety_max_asr,
                    "compares": "the lower end of the 95 % interval of attack success",
                }
            )
        settings = Settings(args.safety_eval_max_new_tokens, chat_template_kwargs=args.template_options or None)
        return statement(decisions, self._questions.suites, self._questions.tasks, [phrases_judge()], settings)

    def _measured(self, measured: dict[str, Any], model: str, folder: str) -> dict[str, Any]:
        own = folder_weights(self._folder(model), self._digests)
        return {
            **measured_content(measured, self._record.statement_digest),
            "weights": {"model": model, "folder": folder, "sha256": own},
            "stopped": why_stopped(self._trainer),
        }

    def _run(self) -> dict[str, Any]:
        trainer, args = self._trainer, self._trainer.args
        seconds = [entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry]
        on_gpu = args.device.type == "cuda"
        return {
            **portable(trainer.facts.as_dict()),
            "base_weights": self._base,
            "rows": self._rows_facts(),
            "code": {"sha256": package_digest()},
            "seed": args.seed,
            "steps": trainer.state.global_step,
            "seconds_of_the_last_start": seconds[-1] if seconds else None,
            "devices": trainer.accelerator.num_processes,
            "device": torch.cuda.get_device_name(args.device) if on_gpu else args.device.type,
        }

    def _rows_facts(self) -> dict[str, Any]:
        rows, form = self._trainer.train_dataset, "tokens"
        if isinstance(self._rows, Dataset):
            rows, form = self._rows, "text"
        if not isinstance(rows, Dataset):
            return {"rows": None, "sha256": None, "form": "streamed"}
        return {"rows": len(rows), "sha256": rows_digest(rows), "form": form}

    def _compute(self) -> dict[str, Any]:
        steps, devices = self._trainer.state.global_step, self._trainer.accelerator.num_processes
        content: dict[str, Any] = {"steps": steps, "devices": devices, "not_counted": list(_NOT_COUNTED)}
        try:
            work = self._work(steps, devices)
        except Exception as error:  # of libraries that do not know the model: what is not counted is not guessed
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            content |= {"flop": None, "flop_of_a_step_on_one_device": {}, "notes": [portable(f"not counted: {why}")]}
        else:
            content |= {"flop": work.total, "flop_of_a_step_on_one_device": work.parts, "notes": list(work.notes)}
        return {**content, "third": compare_with_third(content["flop"], self._base_flop)}

    def _work(self, steps: int, devices: int) -> RunWork:
        trainer = self._trainer
        if not isinstance(trainer.train_dataset, Dataset):
            raise ValueError("the rows are streamed, so that their tokens are not known")
        if is_deepspeed_zero3_enabled():
            raise ValueError("under ZeRO-3 every model that is built is sharded, and this one is built by one process")
        safety = [{"input_ids": row.input_ids, "labels": row.labels} for row in replayed_rows(trainer)]
        return count_run(
            trainer.args,
            base_model(trainer.model).config,
            trainer.model.peft_config[trainer.model.active_adapter] if is_peft_model(trainer.model) else None,
            count_tokens(trainer.train_dataset, "task rows"),
            count_tokens(safety, "safety rows"),
            steps=steps,
            devices=devices,
            fresh=self._fresh,
        )

    def _folder(self, model: str) -> Path:
        args = self._trainer.args
        return Path(args.merged_dir) if model == MERGED else Path(saved_in(self._trainer.model, str(args.output_dir)))

    def _base_weights(self) -> str:
        """Name the weights that training began with; those of a model that was made in memory by their fingerprint."""
        name = str(base_model(self._trainer.model).config._name_or_path)
        known = weights_of(name, self._start_adapter, self._digests) if name else None
        return known or aligned_fingerprint(self._trainer) or _UNKNOWN
