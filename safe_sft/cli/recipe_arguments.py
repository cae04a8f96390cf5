"""The arguments of the commands that take a recipe."""

import re
import tempfile
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml
from trl import DatasetMixtureConfig, ModelConfig, SFTConfig, TrlParser
from trl.scripts.utils import DatasetConfig

from ..config.ranges import check_adapter_ranges
from ..config.recipes import read_recipe, split_recipe
from ..config.safe_sft_config import SafeSFTConfig
from ..config.script_arguments import SafeScriptArguments
from ..config.types import check_value
from ..data.files import require_file
from ..data.named_safety_sets import is_safety_set
from ..methods.listing import field_notes
from .exits import one_line_errors
from .unread import Rule, require_read

Arguments = tuple[SafeScriptArguments, SafeSFTConfig, ModelConfig, DatasetMixtureConfig]
_TYPES: Any = (SafeScriptArguments, SafeSFTConfig, ModelConfig, DatasetMixtureConfig)
#: Keys that a recipe may give values of several types; each has a check of its own.
_OF_SEVERAL_TYPES = (
    "safety_method",
    "safety_weight",
    "chat_template_kwargs",
    "fsdp",
    "debug",
    "datasets",
    "earlier_tasks",
)


#: What TRL says of words that it has no use for.
_REST = re.compile(r"specified arguments are not used by the HfArgumentParser: (.*)")


class RecipeParser(TrlParser):
    """TRL's argument parser, changed so that an error can be caught, and our own arguments are shown first."""

    def error(self, message: str) -> NoReturn:
        """Raise `message`: whoever reads the arguments knows which file they are from.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{message.rstrip('.')}. `safe-sft {self.prog.split()[-1]} --help` says what each takes.")

    def format_help(self) -> str:
        """Return the help, with the arguments in groups; those that TRL's trainer has as well come last."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        groups = _help_groups()
        grouped = {name for names in groups.values() for name in names}
        groups[_OTHERS] = [action.dest for action in self._actions if action.dest not in grouped]
        for title, names in groups.items():
            formatter.start_section(title)
            formatter.add_arguments([action for action in self._actions if action.dest in names])
            formatter.end_section()
        return formatter.format_help()


_OTHERS = "training: the fields of TRL's SFTConfig, and data mixtures"


def _help_groups() -> dict[str, list[str]]:
    """Return title -> names of the arguments under it."""

    def own(ours: type, theirs: type | None = None) -> list[str]:
        known = {field.name for field in fields(theirs)} if theirs else set()
        return [field.name for field in fields(ours) if field.name not in known]

    return {
        "safety": own(SafeSFTConfig, SFTConfig),
        "data, poison, measuring, gate": own(SafeScriptArguments),
        "model and adapter": own(ModelConfig),
    }


def make_parser(command: str) -> TrlParser:
    """Make TRL's parser for the script, trainer, model and mixture arguments; it accepts no abbreviations."""
    usage = f"safe-sft {command} [--config RECIPE] [--FIELD VALUE ...]"  # all fields would bury the rest of the help
    parser = RecipeParser(_TYPES, prog=f"safe-sft {command}", usage=usage, allow_abbrev=False)
    notes = field_notes()
    for action in parser._actions:
        if action.dest in notes:
            action.help = f"{action.help} {notes[action.dest]}"
    return parser


def parse(argv: list[str], command: str = "train") -> Arguments:
    """Parse `argv` and its recipe, with the recipes that it extends; an error is one line, and ends the process."""
    with one_line_errors(command, TypeError):
        return read_arguments(argv, command)


def read_arguments(argv: list[str], command: str = "train") -> Arguments:
    """Parse `argv` and its recipe, with the recipes that it extends.

    Args:
        argv: the words after the command.
        command: name of the command, for its parser's own messages.

    Raises:
        OSError: when a recipe does not exist.
        ValueError: when an argument is wrong, or would have no effect.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, arguments = split_recipe(argv)
        parser = make_parser(command)
        _check_flags(arguments, parser)
        if path is not None:  # TRL's parser takes one file
            recipe = read_recipe(path)
            _check_keys(recipe, parser, path)
            resolved = Path(folder) / "recipe.yaml"
            resolved.write_text(yaml.safe_dump(recipe), encoding="utf-8")
            arguments = ["--config", str(resolved), *arguments]
        try:
            parsed: Arguments = parser.parse_args_and_config(arguments)  # type: ignore[assignment]
        except ValueError as error:
            if found := _REST.search(str(error)):
                raise ValueError(
                    f"These words belong to no argument: {found[1]}. `safe-sft {command} --help` lists all."
                ) from error
            if "bf16/gpu" not in str(error):
                raise
            _raise_other_errors(make_parser(command), arguments)
            raise ValueError(
                "This machine has no GPU that computes in bfloat16, which is the default. Set `use_cpu: true` to run "
                "on the CPU, or `bf16: false`, and `fp16: true` where the GPU has float16 alone."
            ) from error
        check_adapter_ranges(parsed[2])
        _check_unread_fields(parsed)
    return parsed


class _Read(NamedTuple):
    """The arguments, by the names that the rules call them by."""

    script: SafeScriptArguments
    args: SafeSFTConfig
    model: ModelConfig
    mixture: DatasetMixtureConfig


_LORA = "lora_r lora_alpha lora_dropout lora_target_modules lora_target_parameters lora_modules_to_save lora_task_type"
#: Beside the fields of the safety methods, which `SafeSFTConfig` checks.
_RULES = (
    Rule(
        "poison_kind poison_dataset poison_trigger", "`poison_ratio` above 0", lambda run: run.script.poison_ratio > 0
    ),
    Rule("importance_decay", "`importance_previous`", lambda run: run.args.importance_previous is not None),
    Rule("earlier_tasks", "`safety_eval: true`", lambda run: run.script.safety_eval),
    Rule("screen_threshold screen_clean", "`screen`", lambda run: run.script.screen is not None),
    Rule("screen_max_flagged", "`screen: fail`", lambda run: run.script.screen == "fail"),
    Rule("safety_eval_store", "`safety_eval: true`", lambda run: run.script.safety_eval),
    Rule("dataset_config dataset_streaming", "`dataset_name`", lambda run: run.script.dataset_name is not None),
    Rule("dataset_test_split", "`eval_strategy: steps` or `epoch`", lambda run: run.args.eval_strategy != "no"),
    Rule(
        "safety_dataset_config safety_dataset_split",
        "`safety_dataset_name`",
        lambda run: run.script.safety_dataset_name is not None,
    ),
    Rule(
        "safety_eval_size",
        "`safety_eval_steps` or `safety_max_asr`, which measure during training",
        lambda run: run.args.measures_in_training,
    ),
    Rule(
        f"{_LORA} use_rslora use_dora",
        "`use_peft: true`",
        lambda run: run.model.use_peft or run.script.adapter_name_or_path is not None,
    ),
    Rule(
        "bnb_4bit_quant_type use_bnb_nested_quant bnb_4bit_quant_storage",
        "`load_in_4bit: true`",
        lambda run: run.model.load_in_4bit,
    ),
)


#: What to write instead of keys that look like others.
_REPLACED = {
    "per_device_replay_batch_size": "Write `replay_ratio`: safety rows for each task row of an optimizer step, such "
    "as 0.25, however the step is split.",
}


def _check_unread_fields(parsed: Arguments) -> None:
    known = [(part, field) for part in parsed for field in fields(part)]
    values = {field.name: getattr(part, field.name, None) for part, field in known}
    require_read(values, {field.name: _default(field) for _, field in known}, _RULES, _Read(*parsed), recipe=True)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _check_flags(words: list[str], parser: TrlParser) -> None:
    """Refuse a flag that no argument has."""
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag != "--" and flag not in parser._option_string_actions:
            raise ValueError(f"`{flag}` is no argument. {_hint(flag.removeprefix('--'), parser)}")


def _check_keys(recipe: dict[str, Any], parser: TrlParser, path: str) -> None:
    """Refuse a key that no argument has, a value that its argument cannot have, and an output folder of nothing."""
    names = {action.dest for action in parser._actions} | {"env"}
    for key in recipe:
        if key not in names:
            raise ValueError(f"The recipe '{path}' has the key `{key}`, which is no argument. {_hint(key, parser)}")
    if "output_dir" in recipe and recipe["output_dir"] is None:
        raise ValueError(f"The recipe '{path}' says `output_dir: null`. Give the folder to save to.")
    for cls in _TYPES:
        for name in {field.name for field in fields(cls)} & recipe.keys() - {*_OF_SEVERAL_TYPES}:
            check_value(name, recipe[name], cls)
    _check_mixture(recipe.get("datasets"))
    _check_earlier_tasks(recipe.get("earlier_tasks"))


def _hint(name: Any, parser: TrlParser) -> str:
    if name in _REPLACED:
        return _REPLACED[name]
    close = get_close_matches(str(name), [action.dest for action in parser._actions], n=1)
    return f"Did you mean `{close[0]}`?" if close else f"`safe-sft {parser.prog.split()[-1]} --help` lists all."


def _check_mixture(datasets: Any) -> None:
    """Check that TRL's list of data sets is one; None stands for no list."""
    known = {field.name for field in fields(DatasetConfig)}
    parts = datasets if isinstance(datasets, list) else [datasets] if datasets is not None else []
    for part in parts:
        if not isinstance(part, dict) or not part.keys() <= known or not isinstance(part.get("path"), str):
            raise ValueError(
                f"`datasets={datasets!r}` is no list of data sets. Write one a line, such as `- path: rows.jsonl`; "
                f"its keys are {', '.join(sorted(known))}."
            )


def _check_earlier_tasks(tasks: Any) -> None:
    """Check that the tasks of earlier stages are a list of mappings; None stands for no list."""
    if tasks is not None and not (isinstance(tasks, list) and all(isinstance(task, dict) for task in tasks)):
        raise ValueError(
            f"`earlier_tasks={tasks!r}` is no list of mappings. Write one a line, such as `- {{task: sst2, task_size: "
            "1000}`."
        )


def _raise_other_errors(parser: TrlParser, arguments: list[str]) -> None:
    """Raise what else is wrong with the arguments: the kind of machine is the last thing to complain of.

    Raises:
        FileNotFoundError: when a data file does not exist.
        ValueError: when an argument is wrong.
    """
    script, _, model, _ = parser.parse_args_and_config([*arguments, "--use_cpu", "true"])
    if model.model_name_or_path is None:
        raise ValueError("`model_name_or_path` is missing. Set it in the recipe.")
    for name in (script.dataset_name, script.task_path, script.safety_dataset_name, script.safety_eval_prompts):
        named = is_safety_set(name or "")  # `NAME:FILE` is a local copy
        require_file(str(name or "").partition(":")[2] if named else name or "")
