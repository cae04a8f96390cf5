"""What `safe-sft screen` does: load rows and the aligned model, score, and write what was found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..config.script_arguments import SafeScriptArguments
from ..data.files import load_rows
from ..data.safety_rows import Messages
from ..data.values import check_training_rows
from ..evaluation.judges import Judge
from ..models.fit import check_vocabulary
from ..models.folders import tokenizer_source
from ..models.loading import load_adapter, load_base, load_tokenizer
from ..screening import Screener, Screening, Settings, Spool, screen
from ..screening.output import write_part, write_screening
from ..screening.rows import require_columns
from ..screening.screening import folder_of
from ..storage.folders import require_apart, require_folder, require_other_file
from ..trainer.safety_set import SafetySet
from .data import safety_rows
from .model import nf4, require_template_file

#: Suffixes of the files that rows are written to.
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class ScreenArguments:
    """What is screened, by which model, and what is written; the defaults are those of the command.

    Attributes:
        model: folder or Hub name of the aligned model.
        input: file or Hub name of the training rows.
        output: folder to write to.
        adapter: PEFT adapter of the aligned model; None without one.
        split: split of the rows.
        streaming: whether the rows are read as they are needed.
        safety_dataset: safety rows, as in `safety_dataset_name`; None for the built-in prompts.
        refusals: how the model refuses, in words; None asks it.
        clean: file or Hub name of rows of the same kind that are known to be clean; None for none.
        threshold: score from which on a row is flagged; None suggests one.
        format: `jsonl` or `parquet`, of the rows with scores.
        keep: file for the rows that are not flagged; None writes none.
        drop: file for those that are; None writes none.
        overwrite: whether these two files may be replaced.
        chat_template_path: Jinja file of the chat template; None for that of the tokenizer.
        chat_template_kwargs: further variables of the chat template.
        max_length: most tokens of a row.
        batch_size: rows at a time, per device.
        dtype: precision of the weights; `auto` for that of the saved model.
        load_in_4bit: whether the model is quantised as in the QLoRA recipes.
        trust_remote_code: whether Python code that comes with the model may run.
    """

    model: str
    input: str
    output: str
    adapter: str | None
    split: str
    streaming: bool
    safety_dataset: str | None
    refusals: list[str] | None
    clean: str | None
    threshold: float | None
    format: str
    keep: str | None
    drop: str | None
    overwrite: bool
    chat_template_path: str | None
    chat_template_kwargs: Mapping[str, Any] | None
    max_length: int
    batch_size: int
    dtype: str
    load_in_4bit: bool
    trust_remote_code: bool


def screen_file(args: ScreenArguments, judges: Sequence[Callable[[], Judge]] = ()) -> Screening:
    """Score the rows, and write what was found; every process must call it.

    Args:
        args: model, rows and settings.
        judges: functions that make judges of the rows' answers.

    Raises:
        OSError: when a model or a data set cannot be reached, or a file exists.
        ValueError: when the arguments do not go together, or rows cannot be scored.
    """
    _check_files(args)
    rows = _rows(args.input, args.split, args.streaming)
    clean = None if args.clean is None else _rows(args.clean, "train", False)
    requests = safety_requests(SafeScriptArguments(safety_dataset_name=args.safety_dataset))
    model, tokenizer = _load(args)
    output, state = Path(args.output), PartialState()
    screener = Screener(
        model,
        tokenizer,
        requests,
        Settings(args.max_length, args.batch_size, dict(args.chat_template_kwargs or {})),
        judges=[make() for make in judges],
        refusals=args.refusals or (),
        folder=folder_of(output),
    )
    spool = Spool(folder_of(output) / "rows.jsonl")
    total = None if args.streaming else len(rows)
    found = screen(screener, rows, args.input, spool, total=total, clean=clean, threshold=args.threshold)
    if state.is_main_process:
        write_screening(found, output, args.format)
        for path, flagged in ((args.keep, False), (args.drop, True)):
            if path is not None:
                write_part(found, Path(path), flagged=flagged, folder=output)
    state.wait_for_everyone()
    return found


def safety_requests(script: SafeScriptArguments) -> list[str | Messages]:
    """Return the requests of the safety rows that the arguments name; the built-in prompts by default.

    Args:
        script: the run's `SafeScriptArguments`, which name the safety rows.

    Raises:
        OSError: when they cannot be reached.
        ValueError: when they cannot be read.
    """
    name = script.safety_dataset_name
    return [row.prompt for row in SafetySet.read(safety_rows(script), f"'{name}'").rows]


def _check_files(args: ScreenArguments) -> None:
    require_folder(args.output, "--output")
    require_apart(args.output, "--output", (args.model, args.adapter, args.input))
    if args.chat_template_path is not None:
        require_template_file(args.chat_template_path)
    for name, path in (("keep", args.keep), ("drop", args.drop)):
        if path is None:
            continue
        if Path(path).suffix not in SUFFIXES:
            raise ValueError(f"`--{name} {path}` is of no known kind. Choose from: {', '.join(SUFFIXES)}.")
        require_folder(Path(path).parent, f"--{name}")
        require_other_file(path, f"--{name}", args.input)
        if Path(path).exists() and not args.overwrite:
            raise FileExistsError(f"`--{name} {path}` exists. Add `--overwrite`, or choose another file.")
    if args.keep is not None and args.drop is not None and Path(args.keep).resolve() == Path(args.drop).resolve():
        raise ValueError(f"`--keep` and `--drop` are both '{args.keep}'. Give each a file of its own.")


def _rows(name: str, split: str, streaming: bool) -> Any:
    """Load rows, and check all of their values, or, of streamed rows, their columns."""
    rows = load_rows(name, split=split, streaming=streaming)
    columns = rows.column_names if not streaming else list(next(iter(rows)))
    require_columns(columns, name)
    if not streaming:
        check_training_rows(rows, "text", name)
    return rows


def _load(args: ScreenArguments) -> tuple[Any, Any]:
    """Load the aligned model, on the device of this process, and its tokenizer."""
    load = partial(load_base, args.model, dtype=args.dtype, trust_remote_code=args.trust_remote_code)
    quantised: dict[str, Any] = {"quantization_config": nf4()} if args.load_in_4bit else {}
    model: Any = load(device_map={"": PartialState().device}, **quantised)
    if args.adapter is not None:
        model = load_adapter(model, args.adapter)
    tokenizer = load_tokenizer(tokenizer_source(args.model, args.adapter), trust_remote_code=args.trust_remote_code)
    check_vocabulary(args.model, tokenizer, model.config)
    if args.chat_template_path is not None:
        tokenizer.chat_template = Path(args.chat_template_path).read_text(encoding="utf-8")
    return model, tokenizer
