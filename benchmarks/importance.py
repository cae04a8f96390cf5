"""What EWC and MAS cost: ratios of times taken in one run, and the size of a file.

    python -m benchmarks.importance [--hidden 1024] [--layers 8] [--tokens 64]     # on the GPU if there is one

- `penalty`: a LoRA step (forward, backward, AdamW) with the penalty, against the same step without.
- `estimation`: in weight space, at batch size 8, against a plain forward and backward over the same tokens: of LoRA
  training (gradients of the factors alone) and of full training (gradients of all weights).
- `loop`: the same importance one sequence at a time, by autograd through dense gradients, against `estimation`.
- `file`: bytes for LLaMA2-7B, LoRA on all linear layers.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from safe_sft.data import TokenizedRow
from safe_sft.importance import ESTIMATORS, AnchoredSpace, Importance, anchor_space
from safe_sft.importance.estimate import Estimation, estimate_importance
from safe_sft.importance.file import Provenance
from safe_sft.importance.objective import Objective
from safe_sft.replay import ReplayBatch

BATCH, ROWS = 8, 32
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LIMITS = {"penalty": 1.03, "estimation": 1.5, "loop": 3.0, "file": 10e6}


def build(hidden: int, layers: int) -> nn.Module:
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        vocab_size=32000,
    )
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(LlamaForCausalLM(config), lora).to(DEVICE).eval()


def random_rows(tokens: int) -> list[TokenizedRow]:
    """Make random rows of which the second half is the answer."""
    rows = torch.randint(3, 32000, (ROWS, tokens)).tolist()
    return [TokenizedRow(row, [-100] * (tokens // 2) + row[tokens // 2 :]) for row in rows]


def base_weights(model: nn.Module) -> list[nn.Parameter]:
    return [module.base_layer.weight for module in model.modules() if hasattr(module, "lora_A")]


def plain(model: nn.Module, rows: Sequence[TokenizedRow], size: int, trained: list[nn.Parameter]) -> None:
    """Run a forward and a backward of the estimated objective, with gradients of `trained`."""
    objective = Objective(model, "empirical", seed=0, pad_token_id=0)
    for start in range(0, len(rows), size):
        batch = range(start, start + size)
        torch.autograd.grad(objective(ReplayBatch.of(rows, batch, DEVICE)), trained)


def looped(model: nn.Module, rows: Sequence[TokenizedRow], estimator: str) -> None:
    """Compute row and column sums from dense gradients, one sequence at a time."""
    objective = Objective(model, estimator, seed=0, pad_token_id=0)
    weights = base_weights(model)
    sums = [(w.new_zeros(w.size(0)), w.new_zeros(w.size(1))) for w in weights]
    for row in range(len(rows)):
        value = objective(ReplayBatch.of(rows, [row], DEVICE))
        for (by_row, by_column), gradient in zip(sums, torch.autograd.grad(value, weights), strict=True):
            powers = gradient.abs() if estimator == "mas" else gradient.square()
            by_row += powers.sum(1)
            by_column += powers.sum(0)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: torch.Tensor, space: AnchoredSpace | None) -> None:
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    (loss if space is None else loss + space.penalty()).backward()
    optimizer.step()
    optimizer.zero_grad()


def clock() -> float:
    """Return the time in seconds, after the device has finished its work."""
    if DEVICE.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def interleaved(cases: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Run the functions in turns, so that load affects all alike; returns the fastest time of each, in seconds."""
    for run in cases.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, run in cases.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: min(values) for name, values in times.items()}


def penalty_ratio(model: nn.Module, tokens: int, repeats: int) -> float:
    space = anchor_space(model, "weight")
    space.weigh({name: torch.rand(at.shape, device=DEVICE) for name, at in space.layout().items()})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    ids = torch.randint(3, 32000, (BATCH, tokens), device=DEVICE)
    seconds = interleaved(
        {
            "without": lambda: step(model, optimizer, ids, None),
            "with": lambda: step(model, optimizer, ids, space),
        },
        repeats,
    )
    return seconds["with"] / seconds["without"]


def estimation_seconds(model: nn.Module, rows: Sequence[TokenizedRow], repeats: int) -> dict[str, float]:
    space = anchor_space(model, "weight")
    factors = [p for p in model.parameters() if p.requires_grad]
    full = [*factors, *base_weights(model)]

    def dense(run: Callable[[], None]) -> None:
        for weight in base_weights(model):
            weight.requires_grad_(True)
        run()
        for weight in base_weights(model):
            weight.requires_grad_(False)

    def estimate(name: str) -> None:
        estimate_importance(model, space, rows, Estimation(name, BATCH))

    cases: dict[str, Callable[[], None]] = {
        "plain LoRA": lambda: plain(model, rows, BATCH, factors),
        "plain full": lambda: dense(lambda: plain(model, rows, BATCH, full)),
        "loop empirical": lambda: dense(lambda: looped(model, rows, "empirical")),
        "loop mas": lambda: dense(lambda: looped(model, rows, "mas")),
        **{name: lambda name=name: estimate(name) for name in ESTIMATORS},
    }
    return interleaved(cases, repeats)


def llama2_7b_bytes() -> int:
    """Return the size of a file of zeros in the layout of LLaMA2-7B; the content does not change it."""
    shapes = {f"self_attn.{name}_proj": (4096, 4096) for name in "qkvo"}
    shapes |= {"mlp.gate_proj": (11008, 4096), "mlp.up_proj": (11008, 4096), "mlp.down_proj": (4096, 11008)}
    tensors = {}
    for layer in range(32):
        for name, (d_out, d_in) in shapes.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}.default"
            tensors[f"{prefix}.rows"], tensors[f"{prefix}.columns"] = torch.zeros(d_out), torch.zeros(d_in)
    provenance = Provenance("empirical", "weight", {"architecture": "LLaMA2-7B"}, "", "", 100, 10000)
    with tempfile.TemporaryDirectory() as folder:
        return Importance(tensors, provenance).save(Path(folder)).stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = build(args.hidden, args.layers)
    count = sum(p.numel() for p in model.parameters())
    threads = torch.get_num_threads()
    print(f"{count / 1e6:.0f}M parameters, {BATCH} x {args.tokens} tokens, {DEVICE}, {threads} threads")
    seconds = estimation_seconds(model, random_rows(args.tokens), args.repeats)
    table = [("penalty in a LoRA step", penalty_ratio(model, args.tokens, args.repeats), f"<= {LIMITS['penalty']}")]
    for name in ESTIMATORS:
        against = ("LoRA", f"<= {LIMITS['estimation']}"), ("full", "")
        table += [
            (f"{name} / plain {kind}", seconds[name] / seconds[f"plain {kind}"], limit) for kind, limit in against
        ]
    for name in ("empirical", "mas"):
        table.append((f"{name}: loop / batches", seconds[f"loop {name}"] / seconds[name], f">= {LIMITS['loop']}"))
    table.append(("LLaMA2-7B file, MB", llama2_7b_bytes() / 1e6, f"< {LIMITS['file'] / 1e6:.0f}"))
    for what, value, limit in table:
        print(f"{what:<28}{value:8.3f}   {limit}")


if __name__ == "__main__":
    main()
