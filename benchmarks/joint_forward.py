"""When does one padded forward beat two? Measures what a second forward and backward costs beside its tokens.

    python -m benchmarks.joint_forward [--hidden 512] [--layers 8]

Times a LoRA step's forward and backward over batches of several shapes, fits `seconds = fixed + per_token · tokens`,
and prints `fixed / per_token`: the constant `SECOND_FORWARD_TOKENS` of `safe_sft/replay/joint.py`.
"""

import argparse

import numpy as np
import torch

from benchmarks.importance import DEVICE, build, clock

SHAPES = ((1, 16), (2, 32), (4, 48), (4, 96), (8, 96), (8, 192))


def step_seconds(backbone: torch.nn.Module, shape: tuple[int, int]) -> float:
    ids = torch.randint(32000, shape, device=DEVICE)
    start = clock()
    backbone(input_ids=ids, use_cache=False).last_hidden_state.square().mean().backward()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = build(args.hidden, args.layers)
    backbone = model.get_base_model().model
    for shape in SHAPES:
        step_seconds(backbone, shape)
    times = {shape: [] for shape in SHAPES}
    for _ in range(args.repeats):  # interleaved, so that a busy moment hits every shape alike
        for shape in SHAPES:
            times[shape].append(step_seconds(backbone, shape))
    tokens = np.array([rows * width for rows, width in SHAPES], dtype=float)
    best = np.array([min(times[shape]) for shape in SHAPES])
    # Relative errors count: weight by 1 / time.
    per_token, fixed = np.polyfit(tokens, best, 1, w=1 / best)
    for shape, seconds in zip(SHAPES, best, strict=True):
        print(f"{shape[0]:>3} x {shape[1]:<4} {seconds * 1e3:8.1f} ms")
    print(
        f"{sum(p.numel() for p in backbone.parameters()) / 1e6:.0f} M parameters: a second forward costs "
        f"{fixed / per_token:.0f} tokens beside its own"
    )


if __name__ == "__main__":
    main()
