"""What each safety method costs: step time and peak memory as ratios to plain SFT on the same task tokens.

    python -m benchmarks.training_cost                          # 52 M parameters, float32
    python -m benchmarks.training_cost --model llama2-7b        # random NF4 weights, bf16, gradient checkpointing
    python -m benchmarks.training_cost --model llama2-7b --apart --runs plain "der (online)"

All runs are in memory at once and take their steps in turns, or one after the other with `--apart`.

Beside the ratios stand the operations, counted by `safe-sft plan`. A replayed row has a prompt and the first 16 tokens
of an answer, as by default. The naive DER, for comparison, is the usual implementation: a second forward
for the replayed rows, the full logits of student and teacher, and their mean squared error. Memory is what is alive
between steps (weights, optimizer, what the method keeps), and the peak of a step beyond it; on CPU, counted by the
allocator.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast
from trl import SFTTrainer

from benchmarks.cost_table import Results, draw, markdown
from benchmarks.live_memory import allocations
from safe_sft import SafeSFTConfig, SafeSFTTrainer
from safe_sft.data import TokenizedRow
from safe_sft.demo.model import make_tokenizer
from safe_sft.methods import METHODS
from safe_sft.models.adapters import adapter_disabled
from safe_sft.planning.compute import Batch, step_work
from safe_sft.replay import ReplayBatch
from safe_sft.run.arguments import with_values

SHAPES: dict[str, dict[str, Any]] = {
    "small": {"model_type": "llama", "hidden_size": 512, "intermediate_size": 1365, "num_hidden_layers": 8,
              "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 32000},
    "llama2-7b": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                  "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000},
    "mistral-7b": {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                   "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000},
    "gemma-2b": {"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
                 "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000},
}  # fmt: skip
NF4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16,
)
#: Tokens of a replayed row: a short request with its template, and the beginning of an answer.
PROMPT, ANSWER = 49, 16
#: Name -> fields of `SafeSFTConfig`; None is TRL's own trainer.
RUNS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "plain, same total tokens": None,
    "none": {"safety_method": "none"},
    "der (online)": {"safety_method": "der", "teacher_memory": 0},  # as when each row is replayed for the first time
    "der (cached)": {"safety_method": "der", "teacher": "cached"},
    "der (squared)": {"safety_method": "der", "teacher_divergence": "squared", "teacher_memory": 0},
    "er": {"safety_method": "er"},
    "l2": {"safety_method": "l2"},
    "lwf": {"safety_method": "lwf"},
    "csft": {"safety_method": "csft"},
    "csft (cached)": {"safety_method": "csft", "teacher": "cached"},
    "agem": {"safety_method": "agem"},
    "safegrad": {"safety_method": "safegrad"},
    "naive der": None,
}


class NaiveDER(SFTTrainer):
    """The usual implementation of DER: a second forward, full logits, mean squared error."""

    replay: list[TokenizedRow]
    replay_rows: int

    def compute_loss(self, model: nn.Module, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        batch = ReplayBatch.of(self.replay, range(self.replay_rows), self.accelerator.device)
        padded = batch.padded(0)
        logits = model(**padded, use_cache=False).logits
        with torch.no_grad(), adapter_disabled(self.model):
            teacher = model(**padded, use_cache=False).logits
        mask = padded["attention_mask"].bool()
        return loss + nn.functional.mse_loss(logits[mask].float(), teacher[mask].float())


class Run:
    """One trainer, stepped by hand so that several can be interleaved."""

    def __init__(self, name: str, args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast):
        self.name = name
        fields = RUNS[name] or {"safety_method": "none"}
        replays = METHODS[fields["safety_method"]].needs_replay if fields["safety_method"] != "none" else False
        rows = args.batch + (args.replay if name == "plain, same total tokens" else 0)
        config = SafeSFTConfig(
            tempfile.mkdtemp(),
            per_device_train_batch_size=rows,
            **({"replay_ratio": args.replay / args.batch} if replays else {}),
            **fields,
            gradient_checkpointing=args.checkpointing,
            bf16=args.qlora,
            use_cpu=args.device == "cpu",
            optim="adamw_torch" if args.device == "cpu" else "paged_adamw_8bit",
            report_to="none",
            max_length=args.length,
            dataloader_pin_memory=False,
        )
        before = alive()
        kind = SafeSFTTrainer if RUNS[name] else NaiveDER if name == "naive der" else SFTTrainer
        safety = [{"prompt": "a " * (PROMPT // 2 - 1), "completion": "b " * ANSWER}] * max(8, args.replay)
        self.trainer = kind(
            build_model(args),
            config,
            train_dataset=Dataset.from_list([token_row(args.length)] * (args.steps + 2) * (args.batch + args.replay)),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
            **({"safety_dataset": safety} if replays else {}),
        )
        if kind is NaiveDER:
            ids = token_row(PROMPT + ANSWER)["input_ids"]
            self.trainer.replay, self.trainer.replay_rows = [TokenizedRow(ids, ids)] * args.replay, args.replay
        trainer = self.trainer
        if args.checkpointing:
            trainer.model.activation_checkpointing_enable()  # which `Trainer` does as training starts
        trainer.create_optimizer()
        self.model, self.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        trainer.current_gradient_accumulation_steps = 1
        self.batches = iter(trainer.get_train_dataloader())
        self.operations = operations(self, args)
        self.warm_up(before)

    def warm_up(self, before: int) -> None:
        """Take the first step, which makes optimizer states and caches, and a second one, to measure memory."""
        self.step()
        self.resident = (alive() - before) / 2**20
        if torch.cuda.is_available():
            start = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.step()
            peak = torch.cuda.max_memory_allocated() - start
        else:
            with allocations() as found:
                self.step()
            peak = found.peak
        self.peak = peak / 2**20

    def step(self) -> float:
        """Take one optimizer step; returns its seconds."""
        trainer = self.trainer
        batches, items = trainer.get_batch_samples(self.batches, 1, trainer.args.device)
        start = clock()
        trainer.training_step(self.model, batches[0], items)
        self.optimizer.step()
        self.optimizer.zero_grad()
        trainer.state.global_step += 1
        return clock() - start

    def result(self, seconds: list[float]) -> dict[str, float]:
        """Return the numbers that `cost_table` shows."""
        return {
            "seconds": statistics.median(seconds),
            "peak": self.peak,
            "resident": self.resident,
            "operations": self.operations,
        }


def clock() -> float:
    """Return the time in seconds, after the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def alive() -> int:
    """Return the bytes of all tensors that are alive."""
    gc.collect()
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    tensors = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def token_row(length: int) -> dict[str, list[int]]:
    """Make a row of fixed length; half of it is supervised."""
    ids = torch.randint(10, 1000, (length,)).tolist()
    return {"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :]}


def build_model(args: argparse.Namespace) -> nn.Module:
    """Build a model with random weights in the shape of `args.model`; in NF4, kept on disk, except the small one."""
    shape = SHAPES[args.model] | ({"num_hidden_layers": args.layers} if args.layers else {})
    model_type = shape.pop("model_type")
    config = AutoConfig.for_model(model_type, **shape)
    if not args.qlora:
        return AutoModelForCausalLM.from_config(config).to(args.device)
    folder = Path(tempfile.gettempdir()) / f"safe_sft-random-{args.model}-{shape['num_hidden_layers']}"
    if not (folder / "nf4").is_dir():
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        load(folder, args, quantization_config=NF4).save_pretrained(folder / "nf4")
    return load(folder / "nf4", args)


def load(folder: Path, args: argparse.Namespace, **fields: Any) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map={"": args.device}, **fields)


def operations(run: Run, args: argparse.Namespace) -> float:
    """Return the floating-point operations of a step as `safe-sft plan` counts them; of naive DER as of `kl`."""
    config, replayed = run.trainer.args, Batch(0, 0, 0)
    if run.name == "naive der":
        config = with_values(config, safety_method="der", teacher_divergence="kl")
    if any(method.needs_replay for method, _ in config.safety_terms):
        replayed = Batch(args.replay, PROMPT + ANSWER, ANSWER)
    computed = replayed.rows if "cached" not in run.name and config.safety_method == "der" else 0
    task = Batch(config.per_device_train_batch_size, args.length, args.length / 2)
    return step_work(run.trainer.model, config, task, replayed, computed).total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="small")
    parser.add_argument("--batch", type=int, default=4, help="task rows of a step")
    parser.add_argument("--replay", type=int, default=1, help="replayed rows of a step")
    parser.add_argument("--length", type=int, default=None, help="tokens of a row (64; 512 for models in NF4)")
    parser.add_argument("--layers", type=int, default=None, help="instead of as many as the model has")
    parser.add_argument("--checkpointing", action="store_true", help="of gradients; always on for models in NF4")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), help="`plain` must be among them")
    parser.add_argument("--apart", action="store_true", help="one run in memory at a time")
    parser.add_argument("--output", help="JSON file for the results")
    parser.add_argument("--plot", help="SVG or PNG file for a plot of them")
    args = parser.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    args.qlora = args.model != "small"
    args.checkpointing |= args.qlora
    args.length = args.length or (512 if args.qlora else 64)
    torch.manual_seed(0)
    tokenizer = make_tokenizer(["a b c"])
    results = one_by_one(args, tokenizer) if args.apart else together(args, tokenizer)
    with_checkpointing = ", gradient checkpointing" if args.checkpointing else ""
    print(
        f"{args.model}, {args.device}, {args.batch} + {args.replay} rows of {args.length} tokens{with_checkpointing}"
    )
    print(markdown(results))
    if args.plot:
        draw(results, args.plot)
    if args.output:
        Path(args.output).write_text(json.dumps({"arguments": vars(args), "results": results}, indent=2))


def together(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> Results:
    """Keep all runs in memory, and let them take steps in turn."""
    runs = [Run(name, args, tokenizer) for name in args.runs]
    seconds: dict[str, list[float]] = {run.name: [] for run in runs}
    for _ in range(args.steps):
        for run in runs:
            seconds[run.name].append(run.step())
    return {run.name: run.result(seconds[run.name]) for run in runs}


def one_by_one(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> Results:
    """Keep one run in memory at a time."""
    results = {}
    for name in args.runs:
        run = Run(name, args, tokenizer)
        results[name] = run.result([run.step() for _ in range(args.steps)])
        print(name, results[name], flush=True)
        del run
        gc.collect()
        torch.cuda.empty_cache()
    return results


if __name__ == "__main__":
    main()
