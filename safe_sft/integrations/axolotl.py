"""A plugin of axolotl, which trains with `SafeSFTTrainer`:

    plugins:
      - safe_sft.integrations.axolotl.SafeSFTPlugin
    safe_sft:
      safety_method: der

Interface: `axolotl.integrations.base.BasePlugin`, https://docs.axolotl.ai/docs/custom_integrations.html.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from ..config.script_arguments import SafeScriptArguments
from ..run.data import safety_rows
from ..trainer.drop_in import complete_config
from ..trainer.safe_sft_trainer import SafeSFTTrainer

#: Key of the mapping that names the safety rows, as `safety_dataset_name` does in a recipe.
_ROWS = "safety_dataset"


class SafeSFTArgs(BaseModel):
    """What the plugin adds to axolotl's configuration.

    Attributes:
        safe_sft: the safety fields of `SafeSFTConfig`, and `safety_dataset`; None trains as axolotl does.
    """

    safe_sft: dict[str, Any] | None = None


class SafeSFTPlugin(BasePlugin):
    """Lets axolotl train with the terms that `safe_sft:` describes; without it, axolotl's own trainer trains."""

    def get_input_args(self) -> str:
        """Return where the class is that describes `safe_sft:`."""
        return f"{__name__}.{SafeSFTArgs.__name__}"

    def get_trainer_cls(self, cfg: Any) -> type[SafeSFTTrainer] | None:
        """Return the trainer; None where `safe_sft:` is missing.

        Args:
            cfg: axolotl's configuration.

        Raises:
            ValueError: when rows are packed by axolotl's own sampler, which this trainer does not have.
        """
        if cfg.safe_sft is None:
            return None
        if cfg.sample_packing:
            raise ValueError(
                "`sample_packing: true` packs rows by a sampler of axolotl's own trainer, which `safe_sft` replaces. "
                "Set `sample_packing: false`."
            )
        return trainer_class(dict(cfg.safe_sft), cfg.sequence_len)


def trainer_class(settings: Mapping[str, Any], max_length: int | None) -> type[SafeSFTTrainer]:
    """Make a class that takes the arguments of axolotl's trainer.

    Args:
        settings: the mapping `safe_sft:` of axolotl's configuration.
        max_length: axolotl's `sequence_len`, to which rows are cut already.
    """
    fields = {name: value for name, value in settings.items() if name != _ROWS}
    rows = safety_rows(SafeScriptArguments(safety_dataset_name=settings.get(_ROWS)))

    class AxolotlSafeSFTTrainer(SafeSFTTrainer):
        """`SafeSFTTrainer` with axolotl's rows, collator and training arguments."""

        def __init__(
            self,
            model: Any,
            args: Any,
            *,
            bench_data_collator: Any = None,
            eval_data_collator: Any = None,
            dataset_tags: Any = None,
            **kwargs: Any,
        ):
            config = complete_config(args, model, {"max_length": max_length, **fields})
            super().__init__(model, config, safety_dataset=rows, **kwargs)

        def _set_signature_columns_if_needed(self) -> None:
            # TRL drops the rows' masks, as its collator makes its own; axolotl's collator makes none without them.
            if self._signature_columns is None:
                super()._set_signature_columns_if_needed()
                columns: Any = self._signature_columns
                self._signature_columns = [*columns, "attention_mask"]  # type: ignore[assignment]  # None in `Trainer`

        def create_model_card(  # type: ignore[override]  # axolotl's arguments
            self, *args: Any, dataset_tags: Sequence[str] = (), **kwargs: Any
        ) -> None:
            """Write the card, as axolotl asks for it: with the names of its data sets."""
            kwargs.setdefault("dataset_name", next(iter(dataset_tags), None))
            super().create_model_card(*args, **kwargs)

    return AxolotlSafeSFTTrainer
