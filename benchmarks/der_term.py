"""DER's term by itself, compared with the usual implementation: time and memory of its forward and backward.

    python -m benchmarks.der_term

In a whole step the memory of TRL's task loss, which on CPU scores every position in tiles of 32,768 columns, hides
that of the term. Both sides replay the same rows through the same LoRA model, each with a forward of their own.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.live_memory import allocations
from safe_sft.data import TokenizedRow
from safe_sft.losses import logit_gram, squared_logit_distance
from safe_sft.models.adapters import adapter_disabled
from safe_sft.models.parts import LogitHead, backbone
from safe_sft.replay import HiddenStateTap, OnlineTeacher, ReplayBatch

SHAPE = {"hidden_size": 512, "intermediate_size": 1365, "num_hidden_layers": 8, "num_attention_heads": 8}
VOCABULARY = 32_000


def naive(model: nn.Module, batch: ReplayBatch) -> Tensor:
    """Compute full logits of student and teacher, and return their mean squared error."""
    padded = batch.padded(0)
    logits = model(**padded, use_cache=False).logits
    with torch.no_grad(), adapter_disabled(model):
        teacher = model(**padded, use_cache=False).logits
    mask = padded["attention_mask"].bool()
    return nn.functional.mse_loss(logits[mask].float(), teacher[mask].float())


def measure(losses: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, tuple[float, float]]:
    """Measure seconds (median, interleaved) and peak MiB of each loss and its backward."""
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    peaks = {}
    for name, loss in losses.items():
        with allocations() as found:
            loss().backward()
        peaks[name] = found.peak / 2**20
    for _ in range(rounds):
        for name, loss in losses.items():
            start = time.perf_counter()
            loss().backward()
            seconds[name].append(time.perf_counter() - start)
    return {name: (statistics.median(seconds[name]), peaks[name]) for name in losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--length", type=int, default=128, help="tokens of a row, all but the first supervised")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, **SHAPE)
    model = get_peft_model(
        AutoModelForCausalLM.from_config(config),
        LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    ids = torch.randint(10, 1000, (args.length,)).tolist()
    batch = ReplayBatch.of([TokenizedRow(ids, ids)] * args.rows, range(args.rows), torch.device("cpu"))
    tap = HiddenStateTap(backbone(model), 0)
    teacher, gram = OnlineTeacher(tap), logit_gram(LogitHead.of(model).weight.detach())
    cached = teacher.hidden(model, batch)

    def ours(states: Callable[[], Tensor]) -> Tensor:
        return squared_logit_distance(tap.forward_rows(model, batch), states(), gram).mean()

    losses: dict[str, Callable[[], Tensor]] = {
        "naive": lambda: naive(model, batch),
        "der, online": lambda: ours(lambda: teacher.hidden(model, batch)),
        "der, cached": lambda: ours(lambda: cached),
    }
    print(f"{args.rows} x {args.length} tokens, vocabulary {VOCABULARY}")
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        model.train()
        results = measure(losses, args.rounds)
        seconds, mebibytes = results["naive"]
        print(f"gradient checkpointing: {'yes' if checkpointing else 'no'}")
        for name, (t, peak) in results.items():
            print(f"  {name:<12} {t:7.3f} s ({seconds / t:.2f}x)  {peak:7.1f} MiB ({mebibytes / peak:.1f}x)")


if __name__ == "__main__":
    main()
