"""Screens the training rows of a run before it trains, by the model that it starts from."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from accelerate.logging import get_logger
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset, DatasetDict

from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..data.files import load_rows
from ..data.mixing import FROM_SAFETY_SET
from ..data.values import check_training_rows
from ..models.loading import load_base
from ..models.modes import placed
from ..screening import Screener, Screening, Settings, Spool, screen
from ..screening.output import print_screening, write_screening
from ..screening.rows import require_columns
from ..screening.screening import folder_of
from .data import Splits, split_of
from .screen import safety_requests

logger = get_logger(__name__)

#: Folder of what was found, in the run's own; the underscore keeps the rows from the Hub.
FOLDER = "_screening"
_LONGEST = 1024


class TooManyFlagged(ValueError):
    """More of the training rows are flagged than the recipe allows."""


class Screened(NamedTuple):
    """The splits after screening.

    Attributes:
        splits: the splits, with or without the rows that are flagged.
        dropped: how many rows were left out.
    """

    splits: Splits
    dropped: int


def screen_task(
    script: SafeScriptArguments, args: SafeSFTConfig, given: Mapping[str, Any], splits: Splits
) -> Screened:
    """Screen the training rows, as `screen` in the recipe says; without it, nothing is done.

    Args:
        script: the run's `SafeScriptArguments`, with `screen` and its bounds.
        args: the run's `SafeSFTConfig`, with the longest row and the chat template.
        given: the trainer's arguments that give its model, from `trainer_arguments`.
        splits: the splits, with poison and safety rows mixed in.

    Raises:
        TooManyFlagged: with `screen: fail`, when too many rows are flagged.
        ValueError: when the rows cannot be screened, or none would be left.
    """
    if script.screen is None:
        return Screened(splits, 0)
    train = split_of(splits, script.dataset_train_split, "dataset_train_split")
    found = _found(script, args, given, train)
    folder = Path(str(args.output_dir)) / FOLDER
    if PartialState().is_main_process:
        write_screening(found, folder)
        print_screening(found)
    PartialState().wait_for_everyone()
    rate, bound = found.flagged, script.screen_max_flagged
    if script.screen == "fail" and rate.value > bound:
        raise TooManyFlagged(
            f"{rate.successes} of {rate.n} training rows are flagged ({rate.value:.2%}), and `screen_max_flagged` is "
            f"{bound:g}. Look at them in '{folder / 'report.html'}'; then remove them (`screen: drop`), or raise it."
        )
    if script.screen != "drop" or not rate.successes:
        return Screened(splits, 0)
    return Screened(_without_flagged(script, train, splits, found), rate.successes)


def _found(script: SafeScriptArguments, args: SafeSFTConfig, given: Mapping[str, Any], train: Any) -> Screening:
    name = f"the training rows ({script.dataset_train_split})"
    require_columns(train.column_names or list(next(iter(train))), name)
    clean = None if script.screen_clean is None else load_rows(script.screen_clean, split="train")
    if clean is not None:
        require_columns(clean.column_names, str(script.screen_clean))
        check_training_rows(clean, args.dataset_text_field, str(script.screen_clean))
    requests = safety_requests(script)
    processing_class = _with_template(given["processing_class"], args.chat_template_path)
    settings = Settings(args.max_length or _LONGEST, args.per_device_train_batch_size, dict(args.template_options))
    folder = folder_of(Path(str(args.output_dir)) / FOLDER)
    model = given["model"] if not isinstance(given["model"], str) else _load(given)
    with placed(model, args.device):
        screener = Screener(model, processing_class, requests, settings, folder=folder)
        found = screen(
            screener,
            train,
            name,
            Spool(folder / "rows.jsonl"),
            total=len(train) if isinstance(train, Dataset) else None,
            clean=clean,
            threshold=script.screen_threshold,
            trusted=FROM_SAFETY_SET if script.safety_mix_ratio else None,
        )
    del model, screener
    clear_device_cache(garbage_collection=True)
    return found


def _load(given: Mapping[str, Any]) -> Any:
    """Load the model that the trainer will load: its new adapter changes nothing yet."""
    args = given["args"]
    loading = {name: value for name, value in (args.model_init_kwargs or {}).items() if value is not None}
    trust = bool(loading.pop("trust_remote_code", args.trust_remote_code))
    loading.setdefault("device_map", {"": args.device})
    quantised = given.get("quantization_config")
    if quantised is not None:
        loading["quantization_config"] = quantised
    return load_base(given["model"], trust_remote_code=trust, **loading)


def _with_template(processing_class: Any, path: str | None) -> Any:
    """Return the tokenizer or processor with the chat template of the recipe, where it names a file."""
    if path is None:
        return processing_class
    if not path.endswith((".jinja", ".j2")):
        raise ValueError(
            f"`chat_template_path={path!r}` takes the template of another model, and rows are screened with one of a "
            "file. Write it to a .jinja file, and give that; or remove `screen`."
        )
    own = copy(processing_class)
    own.chat_template = Path(path).read_text(encoding="utf-8")
    return own


def _without_flagged(script: SafeScriptArguments, train: Any, splits: Splits, found: Screening) -> Splits:
    places = set(found.scores.flagged(found.threshold.value))
    if len(places) == found.rows:
        raise ValueError(
            f"All {found.rows} training rows are flagged, and `screen: drop` would leave none. Set "
            "`screen_threshold`, or look at the rows with `screen: report`."
        )
    logger.warning(f"{len(places)} of {found.rows} training rows are flagged and left out (`screen: drop`).")
    if isinstance(train, Dataset):
        kept = train.select([place for place in range(len(train)) if place not in places])
        return DatasetDict({**splits, script.dataset_train_split: kept})
    return type(splits)(
        {**splits, script.dataset_train_split: train.filter(lambda _, place: place not in places, with_indices=True)}
    )
