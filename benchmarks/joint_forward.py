"""Replayed rows in the task's forward, or in one of their own: what either costs, and which the package takes.

    python -m benchmarks.joint_forward [--hidden 512] [--layers 8] [--checkpointing] [--dtype bfloat16]

For several shapes of a micro-batch, times a LoRA step's forward and backward with the task's rows alone, with replayed
rows appended (padded to the longer of both) and with replayed rows in a second forward, in turns in one process, and
prints both as a ratio to the task's alone, beside the ratio of the tokens that are not padding. The last column is
what `safe_sft.replay.joining_is_cheaper` takes. Under the table: what a second forward costs beside its own tokens.
"""

import argparse
import statistics

import torch
from torch import Tensor, nn

from benchmarks.importance import DEVICE, build, clock
from safe_sft.data import TokenizedRow
from safe_sft.replay import ReplayBatch, joining_is_cheaper

#: Rows and width of the task's batch, and replayed rows of 65 tokens: as many as `replay_ratio` 1/4 and 1/8 give.
SHAPES = ((1, 64, 1), (4, 64, 1), (8, 64, 1), (16, 64, 2), (4, 128, 1), (8, 128, 1), (4, 256, 1), (2, 512, 1))
REPLAYED = 65
Batch = tuple[int, int]


def work(backbone: nn.Module, batches: tuple[Batch, ...]) -> float:
    """Time the forwards of `batches` and one backward through all of them, in seconds."""
    ids = [torch.randint(32000, shape, device=DEVICE) for shape in batches]
    start = clock()
    losses: list[Tensor] = []
    for rows in ids:
        states = backbone(input_ids=rows, use_cache=False).last_hidden_state
        losses.append(states.float().square().mean())
    torch.stack(losses).sum().backward()
    return clock() - start


def ways(rows: int, width: int, replayed: int) -> dict[str, tuple[Batch, ...]]:
    """Return the batches of the task alone, of a joint forward, and of two."""
    return {
        "plain": ((rows, width),),
        "joint": ((rows + replayed, max(width, REPLAYED)),),
        "apart": ((rows, width), (replayed, REPLAYED)),
    }


def chosen(rows: int, width: int, replayed: int) -> str:
    """Name what the package takes for such a batch."""
    tokens = TokenizedRow([3] * REPLAYED, [3] * REPLAYED)
    batch = ReplayBatch.of([tokens] * replayed, range(replayed), torch.device("cpu"))
    return "joint" if joining_is_cheaper((rows, width), batch, DEVICE.type) else "apart"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of autocast")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = build(args.hidden, args.layers)
    if args.checkpointing:
        model.train()
        model.activation_checkpointing_enable({"use_reentrant": False})
    backbone = model.get_base_model().model
    print("| task | replayed | tokens | joint | apart | taken |\n|---|---|---|---|---|---|")
    excess = []
    with torch.autocast(DEVICE.type, getattr(torch, args.dtype), enabled=args.dtype != "float32"):
        for shape in SHAPES:
            batches = ways(*shape)
            times: dict[str, list[float]] = {way: [] for way in batches}
            for turn in range(args.repeats + 1):  # in turns, so that a busy moment hits every way alike
                for way, batch in batches.items():
                    seconds = work(backbone, batch)
                    if turn:
                        times[way].append(seconds)
            plain, joint, apart = (statistics.median(times[way]) for way in ("plain", "joint", "apart"))
            rows, width, replayed = shape
            tokens = 1 + replayed * REPLAYED / (rows * width)
            excess.append((apart / plain - tokens) * rows * width)
            print(
                f"| {rows} × {width} | {replayed} × {REPLAYED} | {tokens:.2f} | {joint / plain:.2f} "
                f"| {apart / plain:.2f} | {chosen(*shape)} |"
            )
    print(f"\nA second forward costs {statistics.median(excess):.0f} tokens beside its own (median of the shapes).")


if __name__ == "__main__":
    main()
