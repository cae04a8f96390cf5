"""The part of the trainer that writes the model's card and pushes it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger
from huggingface_hub import ModelCard
from trl import SFTTrainer

from ..config.safe_sft_config import SafeSFTConfig
from ..data.forms import with_template_kwargs
from ..hub.card import merge_into_card
from ..hub.decision import require_pushable
from ..hub.eval_results import write_eval_results
from ..hub.facts import CardContent, RunFacts
from ..hub.results import AFTER
from ..models.loading import checked_loads
from ..storage.hub import UNREACHED, Destination, HubError, hub_name, patiently, reason, upload
from ..storage.names import CARD
from ..storage.writing import write_text

logger = get_logger(__name__)


class HubTrainer(SFTTrainer, ABC):
    """`SFTTrainer` with a card that says how safe the model is, and pushes that are tried again.

    Attributes:
        card: what the card says beyond what the trainer knows.
    """

    args: SafeSFTConfig
    card: CardContent
    model: Any
    _pushes: Callable[[], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        self.card = CardContent()
        with checked_loads():
            super().__init__(*args, **kwargs)

    def _prepare_dataset(  # type: ignore[override]
        self, dataset: Any, processing_class: Any, args: SafeSFTConfig, *rest: Any, **more: Any
    ) -> Any:
        if args.template_options:
            dataset = with_template_kwargs(dataset, args.template_options)
        return super()._prepare_dataset(dataset, processing_class, args, *rest, **more)

    @property
    @abstractmethod
    def facts(self) -> RunFacts:
        """Return the facts of the run, for the card."""

    @abstractmethod
    def deployed(self) -> AbstractContextManager[None]:
        """Give `model` the weights that are to be saved, inside this context."""

    def create_model_card(  # type: ignore[override]  # TRL's arguments are not those of `Trainer`
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
    ) -> None:
        """Write TRL's card to `output_dir`, with how the model was kept safe, and how safe it is.

        Args:
            model_name: name of the model; by default that of the repository or of `output_dir`.
            dataset_name: name of the data set on the Hub; the name of a file is left out.
            tags: tags of the card.
        """
        if not self.is_world_process_zero():
            return
        folder = str(self.args.output_dir)
        repo = self.hub_model_id or self.args.hub_model_id or os.path.basename(os.path.abspath(folder))
        model_name = model_name or repo.split("/")[-1]
        super().create_model_card(model_name, hub_name(dataset_name or (self.card.data or {}).get("source")), tags)
        path = Path(folder, CARD)
        write_text(path, merge_into_card(ModelCard.load(path), self.facts, self.card.measured, model_name, repo))
        write_eval_results(folder, self.card.measured, AFTER)
        if self._pushes is not None:  # saved by now, and not yet uploaded
            self._pushes()

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository, and try again where trying again may help.

        Raises:
            HubError: when the repository cannot be created.
        """
        try:
            patiently(partial(super().init_hf_repo, token, private))
        except UNREACHED as error:
            raise HubError(
                f"The repository '{self.args.hub_model_id or self.args.output_dir}' cannot be created on the Hub: "
                f"{reason(error, token or self.args.hub_token)}."
            ) from error

    def push_to_hub(  # type: ignore[override]  # which passes on what it does not read
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        *,
        ignore_gate: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Save the model and push what was saved, as `safe-sft push` would; try again where trying again may help.

        What no gate was set for is pushed as `SFTTrainer` does. What failed its gate, or is not what its evidence or
        the numbers of its card are of, is not.

        Args:
            commit_message: message of the commit.
            blocking: whether to wait for the end of the upload.
            ignore_gate: whether to push a model that failed its gate, too; its card says so.
            kwargs: further arguments of `SFTTrainer.push_to_hub`.

        Raises:
            EvidenceError: when the model is not what its evidence says, or what its numbers are of.
            HubError: when the push failed; the message gives the reason, and how to push again.
            PushRefused: when the model failed its gate.
        """
        args = self.args
        decide = partial(
            require_pushable,
            str(args.output_dir),
            ignore_gate=ignore_gate,
            claims=self.card.measured or {},
            wrote_card=True,
        )
        with self.deployed(), self._deciding(decide):
            if not args.push_to_hub:  # then the repository is created first, and that may fail
                self.save_model(_internal_call=True)
                self.create_model_card()
            try:
                return super().push_to_hub(commit_message, blocking, **kwargs)
            except UNREACHED as error:
                destination = Destination(
                    str(self.hub_model_id),
                    private=args.hub_private_repo,
                    token=kwargs.get("token") or args.hub_token,
                    revision=kwargs.get("revision") or args.hub_revision,
                )
                logger.warning(f"The push broke off ({reason(error, destination.token)}). Going on with it.")
                return upload(str(args.output_dir), destination, message=commit_message or "End of training")

    @contextmanager
    def _deciding(self, decide: Callable[[], None]) -> Iterator[None]:
        """Ask, inside this context, whether what was saved may be pushed, each time that its card is written."""
        self._pushes = decide
        try:
            yield
        finally:
            self._pushes = None
