"""The family of weight anchors that hold each weight as tightly as it matters: EWC and MAS."""

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..importance import Importance, build_importance, load_importance, shared_importance
from ..models.modes import placed
from ..storage.names import OWN_IMPORTANCE
from .base import Preparation, WeightAnchor, sizes_of
from .kept import Kept, Outline


class ImportanceAnchor(WeightAnchor):
    """A weight anchor that holds each weight as tightly as it matters for the safety rows."""

    reads = WeightAnchor.reads | {
        *("importance_path", "importance_previous", "importance_decay", "replay_max_new_tokens")
    }
    needs_rows = True

    @classmethod
    def keeps(cls, outline: Outline) -> list[Kept]:
        """Return the sizes of the anchors, of the importance in float32, and of its file in bfloat16."""
        sizes = sizes_of(outline)
        return [
            *super().keeps(outline),
            Kept("importance", 4 * (sizes.importance + sizes.roots)),
            Kept("importance file, without its header", 2 * sizes.importance, where="disk"),
        ]

    @abstractmethod
    def estimator(self, args: Any) -> str:
        """Return how importance is estimated: `empirical`, `sampled` or `mas`."""

    def _weigh(self, setup: Preparation) -> None:
        """Load or estimate the importance of each weight, and add that of the stage before."""
        args, model, tokenizer = setup.args, setup.model, setup.tokenizer
        if args.importance_path is not None:
            estimator = self.estimator(args)
            importance = load_importance(args.importance_path, model, tokenizer, self._space, estimator=estimator)
        else:
            importance = self._estimated(setup)
        if args.importance_previous is not None:
            importance = importance.after(
                Importance.load(args.importance_previous, "importance_previous"), args.importance_decay
            )
        if args.preparation_store is not None and PartialState().is_main_process:
            importance.save(Path(str(args.output_dir), OWN_IMPORTANCE))
        normalization = "none" if args.penalty_normalization == "none" else "mean"
        self._space.weigh(importance.normalized(normalization).tensors)

    def _estimated(self, setup: Preparation) -> Importance:
        args, model = setup.args, setup.model
        store = args.preparation_store
        estimate = build_importance if store is None else partial(shared_importance, store)
        rows = setup.rows()
        with placed(model, args.device):
            return estimate(
                model,
                setup.tokenizer,
                self._space,
                rows,
                estimator=self.estimator(args),
                batch_size=args.per_device_train_batch_size,
                seed=args.seed,
                autocast=setup.autocast,
                checkpointing=args.gradient_checkpointing,
            )
