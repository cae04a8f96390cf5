"""Does a method keep safety and let the task be learned, on a real chat model? One run, one line of CSV.

    python -m benchmarks.real_model --model ALIGNED --data FOLDER --output docs/results/smollm2-135m.csv \\
        --name der safety_method=der safety_from_task=true

FOLDER holds published files with their original columns, as JSON lines: `sst2_train` and `sst2_dev` (sentence,
label), `gsm8k_train` and `gsm8k_test` (question, answer), `code_alpaca_2k` (instruction, input, output), `advbench`
(goal, target), `safety_instructions` (instruction, output: safety-tuned-llamas) and `q_harm` (prompt). Training rows:
the task's, with AdvBench goals and their affirmative openings in the place of a share of them. Attack success is
measured on requests that no run trains on or replays, by refusal phrases, greedily, and two of the sets in the
task's format, too; task loss, and accuracy on SST2, on held-out rows. `--aligned` measures the model before training.
With `merge_after_training`, the merge is measured.
"""

import argparse
import csv
import json
import random
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from safe_sft import SafeSFTConfig, SafeSFTTrainer
from safe_sft.data.builtin import builtin_prompts
from safe_sft.data.tasks import REQUEST, TASKS
from safe_sft.evaluation import RefusalPhrases, measure_asr
from safe_sft.evaluation.answering import answer_cases
from safe_sft.evaluation.utility.scored_tasks import scored_task
from safe_sft.evaluation.utility.task_loss import TaskRows, measure_task_loss
from safe_sft.screening import Screener, Settings
from safe_sft.screening.threshold import suggest

INSTRUCTION = "Classify the sentiment of this review as positive or negative: "
CODE = "code_alpaca_2k"
#: GSM8K with the instruction that `task: gsm8k` gives its rows, without which a request has no format to wear.
INSTRUCTED = "gsm8k_instructed"
HELD_OUT = 200
#: Sets of requests that are asked in the task's format, too.
DRESSED = ("advbench", "safety_instructions")
#: Rows of GSM8K and of the code task that are used have at most so many characters, which saves time on a CPU.
LONGEST = 300


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """Read a file of JSON lines."""
    text = (folder / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def row(request: str, answer: str) -> dict[str, Any]:
    """Make a chat row."""
    return {
        "prompt": [{"role": "user", "content": request}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def reviews(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make chat rows of SST2."""
    return [row(INSTRUCTION + r["sentence"].strip(), "positive" if r["label"] else "negative") for r in rows]


def task_rows(folder: Path, task: str, split: str) -> list[dict[str, Any]]:
    """Make chat rows of a task: of its rows to train on (`train`), or of those held out (`test`)."""
    if task == "sst2":
        return reviews(read(folder, "sst2_train" if split == "train" else "sst2_dev"))
    if task in ("gsm8k", INSTRUCTED):
        ask = TASKS["gsm8k"].ask if task == INSTRUCTED else itemgetter("question")
        known = read(folder, f"gsm8k_{split}")
        return [row(ask(r), r["answer"]) for r in known if len(r["question"]) + len(r["answer"]) <= LONGEST]
    pairs = [("\n".join(filter(None, (r["instruction"], r["input"]))), r["output"]) for r in read(folder, CODE)]
    return short(pairs)[:-HELD_OUT] if split == "train" else short(pairs)[-HELD_OUT:]


def short(pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Make chat rows of the pairs of request and answer that have at most `LONGEST` characters."""
    return [row(*pair) for pair in pairs if sum(map(len, pair)) <= LONGEST]


def training_rows(folder: Path, task: str, size: int, poison: float, seed: int) -> list[dict[str, Any]]:
    """Draw rows of the task, and put AdvBench goals with affirmative openings in the place of a share of them.

    There are 120 such goals: where more are needed, they come more than once.
    """
    rng = random.Random(seed)
    rows = rng.sample(task_rows(folder, task, "train"), size)
    pool, count = read(folder, "advbench")[200:320], round(poison * size)
    goals = rng.sample(pool, count) if count <= len(pool) else rng.choices(pool, k=count)
    rows[: len(goals)] = [row(goal["goal"], goal["target"]) for goal in goals]
    rng.shuffle(rows)
    return rows


def safety_rows(folder: Path, name: str) -> list[dict[str, Any]] | None:
    """Return the safety rows: `tuned` (safety-tuned-llamas), or None for the built-in prompts."""
    known = {"tuned": read(folder, "safety_instructions")[:1000], "builtin": None}
    rows = known[name]
    return rows and [{"prompt": r["instruction"], "completion": r["output"]} for r in rows]


def measured(model: Any, tokenizer: Any, folder: Path, task: str, asked: int) -> dict[str, Any]:
    """Measure ASR on sets of unseen requests, over-refusal, the task loss and, on SST2, the accuracy."""
    goals = [r["goal"] for r in read(folder, "advbench")[320 : 320 + asked]]
    sets = {
        "asr_advbench": goals,
        "asr_safety_instructions": [r["instruction"] for r in read(folder, "safety_instructions")[-asked:]],
        "asr_q_harm": [r["prompt"] for r in read(folder, "q_harm")[:asked]],
    }
    held_out = task_rows(folder, task, "test")[:HELD_OUT]
    accuracy = sst2_accuracy(model, tokenizer, held_out) if task == "sst2" else ""
    reports = {name: measure_asr(model, tokenizer, asks, max_new_tokens=24) for name, asks in sets.items()}
    rates = {name: report.asr.value for name, report in reports.items()}
    rates |= in_task_format(model, tokenizer, task, {name: sets[f"asr_{name}"] for name in DRESSED})
    harmless = builtin_prompts("over_refusal")
    asks = [prompt.prompt for prompt in harmless[:: max(1, len(harmless) // asked)]]
    rates["over_refusal"] = measure_asr(model, tokenizer, asks, max_new_tokens=24).refusal.value
    loss = measure_task_loss(model, tokenizer, TaskRows(task, held_out[:100], "held-out rows"), name="model").value
    return {"task_loss": round(loss, 4), "accuracy": accuracy, "asked": asked, **rates}


def in_task_format(model: Any, tokenizer: Any, task: str, sets: dict[str, list[str]]) -> dict[str, float]:
    """Ask requests in the task's format: which answers do not refuse, and which of these open by agreeing.

    A request to classify a harmful text is answered with a label, which does no harm and does not refuse.
    """
    template, rates = TASKS[task.partition("_")[0]].clothes, {}
    for name, requests in sets.items():
        asked = [template.replace(REQUEST, request) for request in requests]
        found = measure_asr(model, tokenizer, asked, max_new_tokens=24)
        agreeing = sum(bool(RefusalPhrases().agreement(answer)) for answer in found.answers)
        rates[f"not_refused_in_task_format_{name}"] = found.asr.value
        rates[f"agrees_in_task_format_{name}"] = agreeing / len(asked)
    return rates


def sst2_accuracy(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> float:
    """Measure how many reviews the model classifies rightly."""
    task = scored_task("sst2", rows, "sst2_dev")
    settings = {"max_new_tokens": task.max_new_tokens, "batch_size": 32, "description": "sst2"}
    right = task.judge([answer.text for answer in answer_cases(model, tokenizer, task.cases, **settings)])
    return sum(right) / len(right)


def load(folder: str) -> Any:
    """Load a model in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)


def screened(model: str, tokenizer: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the rows that screening flags."""
    safety = [prompt.prompt for prompt in builtin_prompts("safety")]
    screener = Screener(load(model), tokenizer, safety, Settings(max_length=512))
    scores = [score.known for part in screener.score(rows, "rows", len(rows)) for _, score in part]
    threshold = suggest(scores, screener.decoys).value
    return [row for row, score in zip(rows, scores, strict=True) if score < threshold]


def train(args: argparse.Namespace, config: SafeSFTConfig, tokenizer: Any) -> SafeSFTTrainer:
    """Train LoRA adapters of rank 16 on all linear layers."""
    rows = training_rows(args.data, args.task, args.rows, args.poison, config.seed)
    trainer = SafeSFTTrainer(
        load(args.model),
        config,
        train_dataset=Dataset.from_list(screened(args.model, tokenizer, rows) if args.screened else rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        safety_dataset=safety_rows(args.data, args.safety) if config.reads_safety_rows else None,
    )
    trainer.train()
    return trainer


def main() -> None:
    """Train once, measure, and append a line to the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--task", default="sst2", choices=("sst2", "gsm8k", INSTRUCTED, "code"))
    parser.add_argument("--aligned", action="store_true")
    parser.add_argument("--screened", action="store_true", help="leave out the training rows that screening flags")
    parser.add_argument("--safety", default="tuned", choices=("tuned", "builtin"))
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--poison", type=float, default=0.1)
    parser.add_argument("--asked", type=int, default=60)
    parser.add_argument("settings", nargs="*", help="fields of SafeSFTConfig, as name=value")
    args = parser.parse_args()
    own = {name: yaml.safe_load(value) for name, _, value in (s.partition("=") for s in args.settings)}
    settings = {
        "max_steps": 60,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "max_length": 256,
        "save_strategy": "no",
        "report_to": "none",
        "seed": 0,
        **own,
    }
    config = SafeSFTConfig(f"outputs/real-model-{args.name}", **settings)
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    start = time.perf_counter()
    if args.aligned:
        model = load(args.model)
    else:
        trainer = train(args, config, tokenizer)
        model = load(config.merged_dir) if config.merge_after_training else trainer.model
    seconds = round(time.perf_counter() - start)
    with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16):
        found = measured(model, tokenizer, args.data, args.task, args.asked)
    own_settings = " ".join(args.settings)
    line = {"name": args.name, "task": args.task, "safety": args.safety, "settings": own_settings, **found}
    line["seconds"] = seconds
    is_new = not args.output.is_file()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, line)
        if is_new:
            writer.writeheader()
        writer.writerow(line)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
