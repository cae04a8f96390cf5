"""A stand-in with the interface of lm_eval 0.4.13 (too many dependencies for a test), and a worker that uses it.

python -m torch.distributed.run --nproc_per_node 2 -m tests.evaluation.utility.harness_worker OUT
"""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from accelerate import PartialState

from safe_sft.evaluation.utility.harness import HarnessTask, run_harness
from tests.conftest import make_model, make_tokenizer


class TaskManager:
    """Knows `arc_easy`, and `offline`, whose data cannot be reached."""

    def load_task_or_group(self, names):
        (name,) = names
        if name == "offline":
            raise ConnectionError("no route")
        return {"arc_easy": None}[name]


def stand_in_for_the_harness() -> list[ModuleType]:
    """The package and its modules; answers say which rank gave them."""
    names = ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface", "lm_eval.tasks")
    package, models, huggingface, tasks = map(ModuleType, names)
    package.__spec__ = ModuleSpec("lm_eval", None)
    tasks.TaskManager = TaskManager
    huggingface.HFLM = lambda pretrained, tokenizer, batch_size: (pretrained, tokenizer, batch_size)
    rank = PartialState(cpu=True).process_index
    package.rows = [
        {"filter": f, "filtered_resps": [f"{i} by {rank}"], "acc": float(i < 2 - rank)}
        for f in ("none", "strict")
        for i in range(3)
    ]

    def simple_evaluate(model, tasks, limit, log_samples, apply_chat_template, bootstrap_iters):
        package.called = (model[2], tasks, limit, apply_chat_template)
        return {"results": {tasks[0]: {}}, "samples": {tasks[0]: package.rows}}

    package.simple_evaluate = simple_evaluate
    return [package, models, huggingface, tasks]


def main(out: str) -> None:
    sys.modules.update({module.__name__: module for module in stand_in_for_the_harness()})
    results = run_harness(make_model(), make_tokenizer(), HarnessTask("arc_easy", 3), 8)
    (Path(out) / f"{PartialState().process_index}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
