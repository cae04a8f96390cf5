"""Runs task rows and replayed rows through one forward, without TRL's loss seeing the replayed ones.

Hooks on the backbone append the replayed rows to whatever batch comes in, keep their hidden states, and hand on the
task rows' alone. TRL's loss, normaliser, metrics and token counts are therefore those of the task, the replayed rows
never reach the language-model head, and no private name of TRL is used.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from ..data.batch import ReplayBatch

_PADDED = {"input_ids", "attention_mask"}
_FLATTENED = {"input_ids", "position_ids"}
_FLATTENED_EXTRA = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}
_HARMLESS = {"labels", "use_cache", "return_dict"}

# What a second forward and backward costs beside its own tokens, in tokens. On CPU measured by
# `benchmarks/joint_forward.py`; elsewhere more, as each of its kernels is launched, and each quantised weight
# unpacked, once more: an estimate, not measured. By the kind of device, and not by a clock: a resumed run takes the
# same way.
SECOND_FORWARD_TOKENS = {"cpu": 13}
SECOND_FORWARD_TOKENS_ELSEWHERE = 128


def batch_layout(inputs: Mapping[str, Any]) -> str | None:
    """Return `padded` or `flattened` where rows can be appended to `inputs`; None for images and 4-d masks."""
    present = {key for key, value in inputs.items() if value is not None} - _HARMLESS
    if present == _PADDED and inputs["attention_mask"].dim() == 2:
        return "padded"
    if _FLATTENED <= present <= _FLATTENED | _FLATTENED_EXTRA and inputs["input_ids"].size(0) == 1:
        return "flattened"
    return None


def joining_is_cheaper(task_shape: tuple[int, int], replay: ReplayBatch, device_type: str) -> bool:
    """Return whether one padded forward costs less than two, from the shapes and the kind of device alone.

    Args:
        task_shape: shape of the task batch, `(rows, width)`.
        replay: the rows to replay.
        device_type: the `type` of the device that runs them, such as `cpu`.
    """
    rows, width = task_shape
    joint = (rows + len(replay.rows)) * max(width, replay.width)
    apart = rows * width + len(replay.rows) * replay.width
    return joint <= apart + SECOND_FORWARD_TOKENS.get(device_type, SECOND_FORWARD_TOKENS_ELSEWHERE)


class HiddenStateTap:
    """Reads last hidden states off a backbone: those of replayed rows, and of task rows where asked.

    Args:
        backbone: the module that returns `last_hidden_state`; two hooks are on it until `close`, and again from
            the next forward that is listened to. They change nothing where nothing listens.
        pad_token_id: token id that pads the shorter rows of a batch.
    """

    def __init__(self, backbone: nn.Module, pad_token_id: int):
        self._pad_token_id = pad_token_id
        self._replay: ReplayBatch | None = None
        self._alone: Tensor | None = None
        self._watching = False
        self._split: tuple[str, int, int] | None = None
        self._caught: dict[str, Tensor] = {}
        self._backbone = backbone
        self._hooks: list[RemovableHandle] = []
        self._attach()

    def _attach(self) -> None:
        if not self._hooks:
            append = self._backbone.register_forward_pre_hook(self._append, with_kwargs=True)
            self._hooks = [append, self._backbone.register_forward_hook(self._take)]

    def close(self) -> None:
        """Take the hooks off the backbone."""
        while self._hooks:
            self._hooks.pop().remove()

    @contextmanager
    def listening(self, replay: ReplayBatch | None, task: bool = False) -> Iterator[None]:
        """Let the first forward inside carry `replay` along; then `replay_hidden` (and `task_hidden`) have states."""
        self._attach()
        self._replay, self._watching, self._caught = replay, task, {}
        try:
            yield
        finally:
            self._replay, self._watching, self._split = None, False, None

    def replay_hidden(self) -> Tensor:
        """Return the states that predict the replayed rows' targets, `(tokens, d)`, with gradient."""
        return self._pop("replay")

    def task_hidden(self) -> Tensor:
        """Return the task rows' states, `(rows, width, d)`, with gradient."""
        return self._pop("task")

    def forward(self, model: nn.Module, inputs: Mapping[str, Any], index: Tensor) -> Tensor:
        """Run a forward only for its hidden states; the head computes a single token.

        Args:
            model: the whole model.
            inputs: a batch, without labels.
            index: positions of the wanted states in the flat `(rows · width)` axis, `(tokens,)`.

        Returns:
            `(tokens, d)`.
        """
        self._attach()
        self._alone, self._caught = index, {}
        try:
            model(**{**inputs, "use_cache": False})
        finally:
            self._alone = None
        return self._pop("alone")

    def forward_rows(self, model: nn.Module, replay: ReplayBatch) -> Tensor:
        """Run replayed rows through their own forward; returns the states `(tokens, d)` that predict their targets."""
        return self.forward(model, replay.padded(self._pad_token_id), replay.padded_index(replay.width))

    def _pop(self, name: str) -> Tensor:
        if name not in self._caught:
            raise RuntimeError(f"No forward ran through the backbone, so there are no hidden states ({name}).")
        return self._caught.pop(name)

    def _append(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        if self._replay is None:
            return None
        kwargs = {**_named(module, args), **kwargs}
        rows, width = kwargs["input_ids"].shape
        layout = batch_layout({key: value for key, value in kwargs.items() if key in _PADDED | _FLATTENED})
        self._split = (str(layout), rows, width)
        joined = self._append_padded if layout == "padded" else self._append_flattened
        return (), {**kwargs, **joined(kwargs, self._replay)}

    def _append_padded(self, kwargs: dict[str, Any], replay: ReplayBatch) -> dict[str, Tensor]:
        extra = replay.padded(self._pad_token_id, max(kwargs["input_ids"].size(1), replay.width))
        fill = {"input_ids": self._pad_token_id, "attention_mask": 0}
        return {
            key: torch.cat([F.pad(kwargs[key], (0, rows.size(1) - kwargs[key].size(1)), value=fill[key]), rows])
            for key, rows in extra.items()
        }

    def _append_flattened(self, kwargs: dict[str, Any], replay: ReplayBatch) -> dict[str, Any]:
        extra = replay.flattened()
        joined: dict[str, Any] = {key: torch.cat([kwargs[key], rows], dim=1) for key, rows in extra.items()}
        lengths = torch.tensor([len(ids) for ids in replay.input_ids], dtype=torch.int32)
        for key in ("cu_seq_lens_q", "cu_seq_lens_k"):
            if kwargs.get(key) is not None:
                ends = kwargs[key][-1] + lengths.cumsum(0, dtype=torch.int32).to(kwargs[key].device, non_blocking=True)
                joined[key] = torch.cat([kwargs[key], ends])
        for key in ("max_length_q", "max_length_k"):
            if kwargs.get(key) is not None:
                joined[key] = max(kwargs[key], replay.width)
        if kwargs.get("seq_idx") is not None:
            index = kwargs["seq_idx"]
            more = torch.repeat_interleave(torch.arange(1, len(lengths) + 1, dtype=index.dtype), lengths)
            joined["seq_idx"] = torch.cat(
                [index, index[:, -1:] + more[None].to(index.device, non_blocking=True)], dim=1
            )
        return joined

    def _take(self, module: nn.Module, args: tuple, output: Any) -> Any:
        states = output.last_hidden_state
        if self._alone is not None:
            self._caught["alone"] = _select(states, self._alone)
            output.last_hidden_state = states[:1, :1]
            return output
        if self._replay is not None and self._split is not None:
            states = output.last_hidden_state = self._split_off(states, self._replay, *self._split)
            self._replay = self._split = None
        if self._watching:
            self._caught["task"], self._watching = states, False
        return output

    def _split_off(self, states: Tensor, replay: ReplayBatch, layout: str, rows: int, width: int) -> Tensor:
        """Keep the replayed rows' states, and return the task's."""
        if layout == "flattened":
            self._caught["replay"] = _select(states[0, width:], replay.flattened_index())
            return states[:, :width]
        self._caught["replay"] = _select(states[rows:], replay.padded_index(states.size(1)))
        return states[:rows, :width]


def _named(module: nn.Module, args: tuple) -> dict[str, Any]:
    """Return positional arguments by their names, as many models (GPT-2, Bloom, Falcon) call their backbone."""
    return dict(inspect.signature(module.forward).bind_partial(*args).arguments) if args else {}


def _select(states: Tensor, index: Tensor) -> Tensor:
    return states.reshape(-1, states.size(-1)).index_select(0, index.to(states.device))
