"""A whole run: measure, train, measure, save, check, show, push."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate.logging import get_logger
from datasets import Dataset

from ..evaluation import Check, Evaluation, load_model
from ..evaluation.output.results import answer_lines, results
from ..hub import write_eval_results, write_safety
from ..hub.results import MERGED
from ..models.adapters import adapter_from
from ..models.folders import ADAPTER_CONFIG
from ..models.modes import placed
from ..storage.names import MEASURED_ANSWERS
from ..storage.writing import write_text
from ..trainer.callbacks import FirstLog
from ..trainer.checkpoints import checkpoint_of
from ..trainer.compatibility import weights_are_cut_up
from ..trainer.safe_sft_trainer import SafeSFTTrainer
from ..trainer.task_refusals import warn_of_refusals
from .build import Run
from .evidence import RunEvidence
from .gate import PushRefused, bounds_of, gate_checks, require_passed
from .measure import Answers, Questions, evaluation_of
from .start import start_weights
from .summary import print_summary

logger = get_logger(__name__)


def train(run: Run) -> None:
    """Measure, train, measure, save; print one table; push, if that is asked for and the gate allows it.

    Args:
        run: the run, from `build_run`.

    Raises:
        HubError: when the push failed; the model is saved.
        PushRefused: when the model failed its gate; it is saved, and nothing is pushed.
    """
    trainer, script, questions = run.trainer, run.script, run.questions
    args = trainer.args
    evidence = _evidence(run)
    answers = [_ask(trainer, questions, "before")]
    trainer.add_callback(FirstLog(trainer, answers[0].logs()))
    look_at_the_task(run)
    trainer.card = replace(trainer.card, measured=results(evaluation_of(answers, args)))
    start_weights(trainer, script.start_from)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    with trainer.deployed():
        if questions.suites and weights_are_cut_up(trainer):
            logger.warning("Safety is not measured on sharded weights. Run `safe-sft evaluate` on what was saved.")
        else:
            answers.append(_ask(trainer, questions, "after"))
            if rates := answers[-1].logs():
                trainer.log(rates)
        trainer.save_model(args.output_dir, _internal_call=True)  # which does not push
    merge = _of_merge(trainer, questions)
    evaluation = evaluation_of([_weighed(one, evidence, trainer) for one in (*answers, *merge)], args)
    checks = gate_checks(script, evaluation)
    _record(trainer, evaluation, checks)
    evidence.seal(evaluation, checks)
    if args.push_to_hub:
        if script.push_requires_gate and args.merge_after_training and not merge:
            raise PushRefused(f"The merge in '{args.merged_dir}' was not measured, so nothing was pushed.")
        require_passed(checks, str(args.output_dir), str(trainer.hub_model_id or args.hub_model_id))
        trainer.push_to_hub()
    trainer.end()


def look_at_the_task(run: Run) -> None:
    """Say whether the aligned model refuses some of what it is to be trained on, unless its refusals are replayed.

    Args:
        run: the run, from `build_run`.
    """
    trainer, args = run.trainer, run.trainer.args
    has_requests = isinstance(run.rows, Dataset) and {"prompt", "messages"} & set(run.rows.column_names)
    if has_requests and run.script.safety_eval and args.safety_terms and not args.safety_from_task:
        replayed = run.safety.dressed if any(method.needs_replay for method, _ in args.safety_terms) else ()
        with trainer.accelerator.autocast():
            warn_of_refusals(trainer.model, trainer.processing_class, run.rows, args, replayed)


def _evidence(run: Run) -> RunEvidence:
    """Write what decides about the model, before it is measured or trained."""
    trainer, script = run.trainer, run.script
    evidence = RunEvidence(
        trainer,
        bounds=bounds_of(script),
        questions=run.questions,
        rows=run.rows,
        start_adapter=script.adapter_name_or_path,
        base_training_flop=script.base_training_flop,
    )
    evidence.begin(checkpoint_of(trainer.args.resume_from_checkpoint, str(trainer.args.output_dir)))
    return evidence


def _weighed(answers: Answers, evidence: RunEvidence, trainer: SafeSFTTrainer) -> Answers:
    """Say of which weights the answers are; the first process alone writes them."""
    if not trainer.is_world_process_zero():
        return answers
    spec = answers.model
    return replace(answers, model=replace(spec, weights=evidence.weights(spec.name)))


def _ask(trainer: SafeSFTTrainer, questions: Questions, name: str) -> Answers:
    """Ask the trainer's model in its present state."""
    with placed(trainer.model, trainer.args.device), trainer.accelerator.autocast():
        return questions.ask(trainer.model, trainer.processing_class, trainer.args, name)


def _of_merge(trainer: SafeSFTTrainer, questions: Questions) -> list[Answers]:
    """Ask the merge: an adapter on the trained model's own base, or else a second model that is loaded."""
    if not questions.suites or trainer.args.merge_after_training is None:
        return []
    ask = partial(questions.ask, tokenizer=trainer.processing_class, args=trainer.args, name="merged")
    folder = trainer.args.merged_dir
    if (Path(folder) / ADAPTER_CONFIG).is_file():
        with adapter_from(trainer.model, folder) as model, trainer.accelerator.autocast():
            return [ask(model)]
    try:
        model, _ = load_model(folder, trust_remote_code=trainer.args.trust_remote_code)
        return [ask(model)]
    except torch.OutOfMemoryError:
        logger.warning(
            f"The merge is not measured: no memory is left for it beside the trained model. It is in '{folder}'; "
            f"measure it with `safe-sft evaluate --model {folder}`."
        )
        return []


def _record(trainer: SafeSFTTrainer, evaluation: Evaluation, checks: list[Check]) -> None:
    """Write the numbers and the card beside the model, and show them."""
    measured = results(evaluation, checks)
    trainer.card = replace(trainer.card, measured=measured)
    if trainer.is_world_process_zero():
        write_safety(str(trainer.args.output_dir), measured, trainer.facts)
        write_answers(str(trainer.args.output_dir), evaluation)
        if trainer.args.merge_after_training is not None:  # whoever pushes the merge alone finds the gate, too
            write_safety(trainer.args.merged_dir, measured, trainer.facts)
            write_eval_results(trainer.args.merged_dir, measured, MERGED)
        trainer.create_model_card()
        print_summary(trainer.state, trainer.args.safety_method, evaluation)
        print(f"Saved to {trainer.args.output_dir}")


def write_answers(folder: str, evaluation: Evaluation) -> None:
    """Write every measured answer, with its verdict, beside the model, where there is one; the file is never pushed.

    Args:
        folder: folder of the model.
        evaluation: what was measured.
    """
    if lines := "".join(f"{line}\n" for line in answer_lines(evaluation)):
        write_text(Path(folder) / MEASURED_ANSWERS, lines)
