"""Say what a recipe will need, before you pay for a GPU: memory, tokens, operations, time, and which GPUs it fits.

    safe-sft plan --config recipes/llama2-7b/der.yaml --task gsm8k [--gpu A100-80GB] [--json]

Takes what `safe-sft train` takes. No weights are loaded, and nothing is downloaded for the models whose shapes ship.
"""

import argparse
import json

from .command import command
from .exits import Parser, Status, one_line_errors
from .numbers import count, real
from .recipe_arguments import Arguments
from .recipe_arguments import parse as parse_recipe

_MOST_DEVICES = 100_000


def options() -> argparse.ArgumentParser:
    """Make the parser of this command's own options, which come beside those of `safe-sft train`."""
    parser = Parser(
        prog="safe-sft plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every argument of `safe-sft train` is an argument here too.",
        allow_abbrev=False,
    )
    parser.add_argument("--gpu", help="a GPU by name, or those of a memory such as 24GB; default: all of the table")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--rows", type=count, help="rows of the task, where the data is not at hand")
    parser.add_argument("--row_tokens", type=count, help="tokens of a row; default: counted, else max_length")
    parser.add_argument("--devices", type=count, default=1, help="GPUs that train together")
    parser.add_argument("--utilization", type=real, help="share of a GPU's peak that times assume (default: 0.35)")
    return parser


def parse(argv: list[str]) -> tuple[argparse.Namespace, Arguments]:
    """Parse this command's options and the recipe's arguments, as on a CPU, so that any machine can plan."""
    own, rest = options().parse_known_args(argv)
    return own, parse_recipe([*rest, "--use_cpu", "true"], "plan")


def run(parsed: tuple[argparse.Namespace, Arguments]) -> int:
    """Print the plan.

    Raises:
        ValueError: when the GPU or the model is unknown, or the data cannot be used.
    """
    from ..planning import GPUS, UTILIZATION, find_gpus, make_plan, print_plan
    from ..run.local_rows import local_rows

    own, arguments = parsed
    script, args, model, _ = arguments
    gpus = list(GPUS.values()) if own.gpu is None else find_gpus(own.gpu)
    utilization = UTILIZATION if own.utilization is None else own.utilization
    if not 0 < utilization <= 1:
        raise ValueError(f"`--utilization {utilization}` must be above 0 and at most 1.")
    if own.devices > _MOST_DEVICES:
        raise ValueError(f"`--devices {own.devices}` is more than {_MOST_DEVICES}. Give the GPUs that train together.")
    with one_line_errors("plan", TypeError):
        task, safety = local_rows(*arguments, rows=own.rows, row_tokens=own.row_tokens)
        plan = make_plan(
            args,
            model,
            task,
            safety,
            utilization=utilization,
            devices=own.devices,
            adapter=script.adapter_name_or_path,
        )
    if own.json:
        print(json.dumps(plan.to_dict(gpus), indent=2))
    else:
        print_plan(plan, gpus)
    return Status.DONE


main = command("plan", parse, run)

if __name__ == "__main__":
    raise SystemExit(main())
