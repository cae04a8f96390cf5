"""One round of a repair: a few optimizer steps on safety rows, from one folder to the next."""

import math
import random
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from ..merging.companions import copy_tokenizer
from ..models.finite import NotFinite, require_finite
from ..models.folders import MODEL_FILES, is_adapter
from ..models.loading import load_adapter, load_base
from ..models.modes import without_dropout
from ..models.opening import own_file
from ..models.parts import backbone
from ..replay import HiddenStateTap
from ..storage.folders import complete_folder
from .lessons import Taught

#: The LoRA through which a full model is repaired; it is merged into the weights after each round.
RANK, ALPHA = 16, 32
_LARGEST_GRADIENT = 1.0


class Trained(NamedTuple):
    """What a round came to.

    Attributes:
        loss: mean loss of its steps, in nats per token.
        flop: operations of its steps, each counted as the first; None where they cannot be counted.
    """

    loss: float
    flop: float | None


@dataclass(frozen=True)
class Training:
    """How a round trains.

    Attributes:
        steps: optimizer steps of a round.
        batch_size: safety rows of a step.
        learning_rate: learning rate of AdamW, which starts anew in each round.
        seed: seed of the order of the rows.
        trust_remote_code: whether to run code that comes with the model.
    """

    steps: int = 8
    batch_size: int = 8
    learning_rate: float = 2e-4
    seed: int = 0
    trust_remote_code: bool = False

    def order(self, rows: int, number: int) -> Iterator[list[int]]:
        """Yield the rows of each step of a round: all rows once, in a new order, before any comes again.

        Args:
            rows: number of rows.
            number: number of the round, from 1 on.
        """
        rng = random.Random(f"{self.seed}-{number}")
        left: list[int] = []
        for _ in range(self.steps):
            step: list[int] = []
            while len(step) < min(self.batch_size, rows):
                left = left or rng.sample(range(rows), rows)
                step.append(left.pop())
            yield step

    def run(
        self, source: Path, base: str | None, target: Path, taught: Taught, tokenizer: Path, number: int
    ) -> Trained:
        """Train what `source` holds, and write it to `target`, whole or not at all.

        Args:
            source: folder of the model or adapter as it is before the round.
            base: folder or Hub name of the adapter's base; None for a full model.
            target: folder that the round writes.
            taught: the safety rows.
            tokenizer: folder of the tokenizer, which is copied.
            number: number of the round, from 1 on.

        Raises:
            ValueError: when a loss or a weight is not finite, or the models do not fit each other.
        """
        model = self._loaded(source, base)
        losses, flop = self._train(model, taught, number)
        require_finite(model, "the repaired model", "It is not saved. Lower `--learning_rate`.")
        with complete_folder(target, overwrite=False) as folder:
            if base is None:
                model.merge_and_unload().save_pretrained(folder)
                _copy_companions(source, folder)
            else:
                model.save_pretrained(folder)
            copy_tokenizer(tokenizer, folder)
        return Trained(sum(losses) / len(losses), flop)

    def _loaded(self, source: Path, base: str | None) -> Any:
        """Load the model with an adapter that is trained: its own, or a fresh one on a full model."""
        options: dict[str, Any] = {"trust_remote_code": self.trust_remote_code, "dtype": "auto"}
        if base is not None:
            assert is_adapter(source)
            model = load_adapter(load_base(base, **options), str(source), is_trainable=True)
        else:
            config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
            torch.manual_seed(self.seed)
            model = get_peft_model(load_base(str(source), **options), config)
        return model.to(PartialState().device)

    def _train(self, model: Any, taught: Taught, number: int) -> tuple[list[float], float | None]:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=0.0)
        tap, losses = HiddenStateTap(backbone(model), model.config.pad_token_id or 0), list[float]()
        counter = FlopCounterMode(display=False)
        with without_dropout(model):
            for places in self.order(len(taught.rows), number):
                with nullcontext() if losses else counter:
                    loss = taught.loss(model, tap, places)
                    loss.backward()
                losses.append(loss.item())
                norm = torch.nn.utils.clip_grad_norm_(trained, _LARGEST_GRADIENT)
                if not math.isfinite(losses[-1] + norm.item()):
                    raise NotFinite(f"Round {number} met a loss that is not finite. Lower `--learning_rate`.")
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        tap.close()
        counted = None if getattr(model.config, "quantization_config", None) else counter.get_total_flops()
        return losses, None if counted is None else float(counted * self.steps)


def _copy_companions(source: Path, target: Path) -> None:
    """Copy what a full model has beside its weights and configuration, such as code of its own."""
    for pattern in MODEL_FILES:
        for path in source.glob(pattern):
            if not (target / path.name).exists():
                shutil.copyfile(own_file(source, path), target / path.name)
