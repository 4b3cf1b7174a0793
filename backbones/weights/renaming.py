"""Rename the tensors of a state dict by rules, with a record of what became of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.errors import CheckpointError, first_names, printable, shorten
from backbones.weights.files import WRAPPERS_OWN, wrapper_prefixes

State = dict[str, Tensor]
_WRAPPERS = (
    *("model", "blobs", "state_dict", "model_state", "model_state_dict", "net", "network", "weights", "state"),
    *("teacher", "student", "model_ema", "state_dict_ema", "ema"),  # only where there is none of the others
)


@dataclass(frozen=True)
class RenameRule:
    """What becomes of the tensors whose whole name matches `pattern`. Of several rules that match, the first one applies.

    `target` is the new name, which may refer to groups of the pattern; None leaves the tensor out, and `note` says why.
    `change` rearranges the values, and `note` says how. With `refuse` such a tensor shows that the network is another one.
    """

    pattern: str
    target: str | None = None
    note: str = ""
    change: Callable[[Tensor], Tensor] | None = None
    refuse: bool = False


@dataclass(frozen=True)
class ConversionEntry:
    """What became of one tensor: its name in the source (None: it is not from there) and here (None: left out)."""

    source: str | None
    target: str | None
    note: str = ""

    @property
    def kind(self) -> str:
        """matched (same name), renamed, dropped or added."""
        if self.source is None:
            return "added"
        if self.target is None:
            return "dropped"
        return "matched" if self.source == self.target else "renamed"


def unwrap_state_dict(contents: Mapping[str, Any], source: str) -> tuple[State, dict[str, Any]]:
    """The state dict in what was read from `source`, as tensors, and the other entries of the file.

    Of several state dicts the first of `model`, `blobs`, `state_dict` and so on is taken, averaged weights ("ema") last.
    Raises CheckpointError where there is none, or something in it is neither a tensor nor an array of numbers.
    """
    for key in _WRAPPERS:
        inner = contents.get(key)
        if isinstance(inner, Mapping) and inner:
            extras = {name: value for name, value in contents.items() if name != key}
            if any(isinstance(inner.get(deeper), Mapping) for deeper in _WRAPPERS):  # {"state": {"model": {...}}}
                state, more = unwrap_state_dict(inner, source)
                return state, more | extras
            return {name: _to_tensor(name, value, source) for name, value in inner.items()}, extras
    return {name: _to_tensor(name, value, source) for name, value in contents.items()}, {}


def _to_tensor(name: Any, value: Any, source: str) -> Tensor:
    if isinstance(name, str):
        if isinstance(value, Tensor):
            return value.detach()
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
            # A copy in this machine's byte order: arrays of a pickle may have the other, or be read-only.
            return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    shown = printable(str(name))[:80]
    raise CheckpointError(
        f"{source} is no state dict: '{shown}' is a {type(value).__name__}, not a tensor or an array of numbers"
    )


def rename(
    state: Mapping[str, Tensor], rules: Sequence[RenameRule], source: str, format_name: str
) -> tuple[State, list[ConversionEntry]]:
    """The tensors under their new names, float ones in float32, and an entry for each. Prefixes of wrappers are ignored.

    Raises CheckpointError naming the first tensors that no rule explains, or a reason to refuse the network.
    """
    prefix = _rules_prefix(state, rules)
    rules = [*rules, *(RenameRule(re.escape(key), note="a wrapper's own") for key in WRAPPERS_OWN)]
    found = {key: _first_match(key.removeprefix(prefix), rules) for key in state}
    for key, rule in found.items():
        if rule is not None and rule.refuse:
            raise CheckpointError(f"{source} has {shorten(key)}: {rule.note}")
    unexplained = [key for key, rule in found.items() if rule is None]
    if unexplained:
        raise CheckpointError(
            f"{source} looks like {format_name}, but {len(unexplained)} of its {len(state)} tensors have no place in that: "
            f"{first_names(unexplained)}"
        )
    renamed, entries = {}, []
    for key, rule in found.items():
        assert rule is not None
        target = None if rule.target is None else re.sub(rule.pattern, rule.target, key.removeprefix(prefix), count=1)
        if rule.change is not None and state[key].ndim == 0:
            raise CheckpointError(f"{source}: '{key}' is a single number, not the tensor of a layer")
        entries.append(ConversionEntry(key, target, rule.note))
        if target is not None:
            renamed[target] = state[key] if rule.change is None else rule.change(state[key])
    twice = [name for name, count in Counter(entry.target for entry in entries).items() if name and count > 1]
    if twice:
        keys = [entry.source or "" for entry in entries if entry.target == twice[0]]
        raise CheckpointError(f"{source} gives '{twice[0]}' more than once: {first_names(keys)}")
    return float32_state(renamed), entries


def _rules_prefix(keys: Collection[str], rules: Sequence[RenameRule]) -> str:
    """The shortest of the known prefixes, one after the other, without which a rule explains some key; "" if there is none."""
    return next(
        (prefix for prefix in wrapper_prefixes(keys) if any(_first_match(key[len(prefix) :], rules) for key in keys)), ""
    )


def float32_state(state: Mapping[str, Tensor]) -> State:
    """The state dict with every floating-point tensor in contiguous float32."""
    return {key: value.float().contiguous() if value.is_floating_point() else value for key, value in state.items()}


def _first_match(key: str, rules: Sequence[RenameRule]) -> RenameRule | None:
    return next((rule for rule in rules if re.fullmatch(rule.pattern, key)), None)
