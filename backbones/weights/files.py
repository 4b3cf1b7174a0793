"""Read, verify and write checkpoints. Pickles are never trusted: only plain containers and tensors are read."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.errors import CheckpointError, first_names
from backbones.files import replacing
from backbones.weights.pickles import DamagedPickleError, ForbiddenPickleError, is_plain_pickle, load_pickle

# What torch lets through from a damaged or foreign file, besides UnpicklingError.
_DAMAGE = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    AssertionError,
    struct.error,
    MemoryError,
)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The mapping in a .safetensors file, in one that torch.save wrote, or in a pickle of numpy arrays, on the CPU.

    Runs no code of the file. Raises CheckpointError if it is missing, truncated, foreign, or holds anything but plain
    containers, tensors and arrays.
    """
    path = Path(path)
    require_readable(path)
    if path.suffix == ".safetensors":
        contents: Any = _read_safetensors(path)
    else:
        contents = _read_pickle(path) if is_plain_pickle(path) else _read_torch(path)
    if not isinstance(contents, Mapping):
        raise CheckpointError(f"{path} holds a {type(contents).__name__}, not a checkpoint or state dict")
    return dict(contents)


def require_readable(path: Path) -> None:
    """Raise CheckpointError where there is no such file, or it may not be read."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error.strerror or error}") from None


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # the name of a class or function
            raise CheckpointError(
                f"{path} holds Python objects, which could run code, so it is not read: save plain tensors, "
                "as in torch.save(model.state_dict(), path) or safetensors"
            ) from None
        raise CheckpointError(f"{path} is not a checkpoint, or is cut short or damaged: copy or make it again") from None
    except _DAMAGE:
        raise CheckpointError(f"{path} is not a checkpoint, or is cut short or damaged: copy or make it again") from None


def _read_pickle(path: Path) -> Any:
    try:
        return load_pickle(path)
    except ForbiddenPickleError as error:
        raise CheckpointError(
            f"{path} names {error}, which could run code, so it is not read: of pickles only plain containers of numpy "
            "arrays are"
        ) from None
    except DamagedPickleError:
        raise CheckpointError(f"{path} is not a checkpoint, or is cut short or damaged: copy or make it again") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(f"reading {path} needs the package safetensors: pip install safetensors") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is cut short or damaged: {error}") from None


def save_checkpoint(contents: Mapping[str, Any], path: str | Path) -> None:
    """Write plain containers and tensors so that at any instant `path` is absent, the old file, or the new one, whole.

    Raises CheckpointError, the old file intact, if it cannot be written.
    """
    try:
        with replacing(path) as file:
            torch.save(dict(contents), file)
    except (OSError, RuntimeError) as error:
        # Closing its archive on a full disk, torch raises a RuntimeError over the OSError.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise CheckpointError(
            f"cannot write checkpoint {path}: {cause.strerror or cause}; free some space or write elsewhere"
        ) from None


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict strictly, after checking all of it. BatchNorm's step counts may be absent or too many.

    Raises CheckpointError naming `source` and the first missing, unexpected, mis-shaped or non-finite keys.
    """
    module.load_state_dict(fitting_state(module.state_dict(), state, source), strict=True)


def fitting_state(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of `state` for a model whose state dict is `expected`: all of them but step counts that it has not.

    Raises CheckpointError as `load_state` does.
    """
    _check_keys([key for key, value in state.items() if not is_named_tensor(key, value)], "keys without a tensor", source)
    _check_keys([key for key in expected if key not in state and not _is_counter(key)], "missing keys", source)
    _check_keys([key for key in state if key not in expected and not _is_counter(key)], "unexpected keys", source)
    chosen = {key: value for key, value in state.items() if key in expected}
    for key, value in chosen.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{source} does not fit the model: '{key}' has shape {tuple(value.shape)}, "
                f"the model's has {tuple(expected[key].shape)}; take weights of the same architecture"
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError(f"{source}: '{key}' holds NaN or infinity; take a checkpoint from before training diverged")
    return chosen


def _check_keys(keys: list[str], problem: str, source: str) -> None:
    if keys:
        found = f"{len(keys)} {problem}: {first_names(keys)}"
        raise CheckpointError(f"{source} does not fit the model: {found}; take weights of the same architecture")


def is_named_tensor(key: Any, value: Any) -> bool:
    """Whether this could be an item of a state dict."""
    return isinstance(key, str) and isinstance(value, Tensor)


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == "num_batches_tracked"
