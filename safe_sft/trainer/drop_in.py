"""What makes the trainer a drop-in: it takes the arguments of `SFTTrainer`, and shows its signature."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from transformers import TrainerCallback, TrainingArguments
from trl import SFTTrainer

from ..config.safe_sft_config import SafeSFTConfig


def complete_config(args: TrainingArguments | None, model: Any, own: Mapping[str, Any] | None = None) -> SafeSFTConfig:
    """`args` as a `SafeSFTConfig`: the same values, and the defaults of the safety fields.

    Args:
        args: an `SFTConfig`, `TrainingArguments`, a class of the user's derived from one of them, or nothing. What a
            derived class adds can be read from the result, too. None for a switch means off.
        model: the aligned model or its name, which names the output folder where `args` is None.
        own: further fields, which win, by name.

    Raises:
        ValueError: when a field does not exist, or cannot have its value.
    """
    if isinstance(args, SafeSFTConfig):
        return args
    if args is None:
        name = model if isinstance(model, str) else model.config._name_or_path
        return SafeSFTConfig(f"{name.rstrip('/').split('/')[-1]}-SFT")
    known = {field.name for field in fields(SafeSFTConfig) if field.init}
    # Not `to_dict`, which masks every field that ends in `_token`.
    values = {field.name: getattr(args, field.name) for field in fields(args) if field.init and field.name in known}
    types = get_type_hints(SafeSFTConfig)
    values = {name: False if value is None and types[name] is bool else value for name, value in values.items()}
    for name in own or ():
        if name not in known:
            raise ValueError(f"`{name}` is no field of `SafeSFTConfig`. Check its name, or remove it.")
    config = SafeSFTConfig(**{**values, **(own or {})})
    for name, value in vars(args).items():
        if name not in vars(config):
            setattr(config, name, value)
    return config


def check_callbacks(callbacks: Any) -> None:
    """Check that the callbacks that were given are callbacks: `Trainer` calls each by its events, unseen.

    Args:
        callbacks: the trainer's `callbacks`.

    Raises:
        TypeError: for the first that is none.
    """
    for callback in callbacks if isinstance(callbacks, list) else ():
        if not isinstance(callback, TrainerCallback) and not (
            isinstance(callback, type) and issubclass(callback, TrainerCallback)
        ):
            raise TypeError(f"`callbacks` holds {callback!r}. Give objects, or classes, of `TrainerCallback`.")


def signature_with(trainer: type[SFTTrainer], argument: str) -> inspect.Signature:
    """Return `SFTTrainer`'s own signature with one more argument, for `help()` and editors.

    Args:
        trainer: the class whose `__init__` has the argument.
        argument: name of the argument.
    """
    theirs = _signature()
    ours = inspect.signature(trainer.__init__).parameters[argument]
    parameters = list(theirs.parameters.values())
    place = len(parameters) - (parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
    return theirs.replace(parameters=[*parameters[:place], ours, *parameters[place:]])


def argument_of(name: str, *positional: Any, **kwargs: Any) -> Any:
    """Return one argument of a call of `SFTTrainer`, however it was given; None where it was not.

    Args:
        name: name of the argument.
        positional: the positional arguments, from `model` on.
        kwargs: the keyword arguments.
    """
    bound = _signature().bind_partial(None, *positional, **kwargs)
    return bound.arguments.get(name)


def _signature() -> inspect.Signature:
    """Return the signature that names the arguments; that of a class which a tool put in TRL's place may not."""
    signatures = [inspect.signature(vars(cls)["__init__"]) for cls in SFTTrainer.__mro__ if "__init__" in vars(cls)]
    return next(signature for signature in signatures if "train_dataset" in signature.parameters)
