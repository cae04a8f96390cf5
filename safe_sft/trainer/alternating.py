"""The part of the trainer that makes batches of safety rows in the place of the task's, for methods that alternate."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader

from ..data import TokenizedRow
from ..methods import SafetyMethod
from ..replay.alternation import AlternatingSampler, Alternation
from .hub_trainer import HubTrainer

_COLUMNS = ["input_ids", "labels"]


class AlternatingTrainer(HubTrainer, ABC):
    """`SFTTrainer` whose optimizer steps are of the task, or where a method alternates, of the safety set."""

    _tokenized_rows: Callable[[], list[TokenizedRow]]

    @property
    @abstractmethod
    def _methods(self) -> Sequence[SafetyMethod]: ...

    @property
    def _alternation(self) -> Alternation | None:
        """The order of safety rows and task rows; None where all steps are of the task."""
        return next((method.alternation for method in self._methods if method.alternates), None)

    def get_train_dataloader(self) -> DataLoader:
        """Return TRL's batches, among them those of safety rows where a method alternates."""
        alternating = [method for method in self._methods if method.alternates]
        if not alternating:
            return super().get_train_dataloader()
        rows: Any = self.train_dataset
        safety = [{"input_ids": row.input_ids, "labels": row.labels} for row in self._tokenized_rows()]
        together = self._train_batch_size * self.accelerator.num_processes
        order = Alternation(
            len(rows),
            len(safety),
            together * self.args.gradient_accumulation_steps,
            self.args.lisa_safety_steps,
            self.args.lisa_task_steps,
            self.args.seed if self.args.data_seed is None else self.args.data_seed,
            together if self.accelerator.num_processes > 1 else 1,
        )
        for method in alternating:
            method.alternation = order
        task = rows.select_columns(_COLUMNS)
        return self._get_dataloader(
            dataset=concatenate_datasets([task, Dataset.from_list(safety, features=task.features)]),
            description="Training",
            batch_size=self._train_batch_size,
            sampler_fn=lambda _: AlternatingSampler(order, lambda: self.state.global_step),
            is_training=True,
        )
