"""How much faster than one prompt at a time? Batched, length-sorted answers against a plain loop over `generate`.

    python -m benchmarks.generation --model /path/to/model [--prompts 256] [--max-new-tokens 24] [--batch-size 32]

Both answer the package's own prompts greedily; the answers must be equal in float32. Prints seconds and their ratio.
"""

import argparse
import time

from safe_sft.data import builtin_prompts, prompt_token_ids
from safe_sft.evaluation import load_model
from safe_sft.models.generation import generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    model, tokenizer = load_model(args.model, dtype=args.dtype)
    texts = [p.prompt for name in ("harmful_heldout", "over_refusal") for p in builtin_prompts(name)]
    prompts = [prompt_token_ids(tokenizer, text) for text in texts[: args.prompts]]

    def seconds(groups: list[list[list[int]]], batch_size: int) -> tuple[float, list[list[int]]]:
        start = time.perf_counter()
        answers = [
            answer
            for group in groups
            for answer in generate(
                model,
                tokenizer,
                group,
                max_new_tokens=args.max_new_tokens,
                batch_size=batch_size,
                progress=False,
            )
        ]
        return time.perf_counter() - start, answers

    seconds([prompts[:8]], 8)  # the first call is slower
    batched, answers = seconds([prompts], args.batch_size)
    single, alone = seconds([[prompt] for prompt in prompts], 1)
    equal = sum(a == b for a, b in zip(answers, alone, strict=True))
    print(f"one at a time {single:.1f} s, batched {batched:.1f} s: {single / batched:.1f} x")
    print(f"{equal} of {len(prompts)} answers are equal")


if __name__ == "__main__":
    main()
