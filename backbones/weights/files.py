"""Read, verify and write checkpoints. Pickles are never trusted: only plain containers and tensors are read."""

from __future__ import annotations

import logging
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from backbones.errors import CheckpointError, first_names, printable, shorten
from backbones.files import open_regular, replacing
from backbones.weights.dry_run import check_archive, check_pickle
from backbones.weights.limits import MAX_SAFETENSORS_HEADER, MAX_TENSORS, UnfitContentsError, check_contents, tensor_fault
from backbones.weights.pickles import LEGACY_TORCH, ForbiddenPickleError, load_pickle

logger = logging.getLogger(__name__)

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
    ArithmeticError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    MemoryError,
)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The mapping in a .safetensors file, in one that torch.save wrote, or in a pickle of numpy arrays, on the CPU.

    Runs no code of the file, and takes no more memory than a small multiple of its size. Raises CheckpointError if it is
    missing, no regular file, truncated, foreign, or holds anything but plain containers, tensors and arrays.
    """
    path = Path(path)
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        with _as_checkpoint_errors(path):
            contents = _read(path, file, size)
            check_contents(contents, size)
    if not isinstance(contents, Mapping):
        raise CheckpointError(f"{path} holds a {type(contents).__name__}, not a checkpoint or state dict")
    return dict(contents)


def require_readable(path: Path) -> None:
    """Raise CheckpointError where there is no such file, it is a folder, pipe or device, or it may not be read."""
    with _open(path):
        pass


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(path))
        except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(f"cannot read checkpoint {printable(str(path))}: {reason}") from None
        yield file


@contextmanager
def _as_checkpoint_errors(path: Path) -> Iterator[None]:
    """Inside, what is wrong with the contents becomes a CheckpointError of one line."""
    try:
        yield
    except CheckpointError:
        raise
    except UnfitContentsError as error:
        raise CheckpointError(
            f"{path} holds {error}: no file of weights needs that, so it is not read; take another copy of it"
        ) from None
    except ForbiddenPickleError as error:
        raise CheckpointError(
            f"{path} names {error}, which could run code, so it is not read: of pickles only plain containers of numpy "
            "arrays are"
        ) from None
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # the name of a class or function
            raise CheckpointError(
                f"{path} holds Python objects, which could run code, so it is not read: save plain tensors, "
                "as in torch.save(model.state_dict(), path) or safetensors"
            ) from None
        raise CheckpointError(_damaged(path)) from None
    except _DAMAGE:
        raise CheckpointError(_damaged(path)) from None


def _damaged(path: Path) -> str:
    return f"{path} is not a checkpoint, or is cut short or damaged: copy or make it again"


def _read(path: Path, file: BinaryIO, size: int) -> Any:
    if path.suffix == ".safetensors":
        return _read_safetensors(path, file)
    start = file.read(len(LEGACY_TORCH))
    file.seek(0)
    if start[:2] == b"PK":  # what torch.save writes: a zip archive
        check_archive(file, size)
    elif start != LEGACY_TORCH and (start[:1] == b"\x80" or path.suffix == ".pkl"):
        return load_pickle(file, size)
    else:  # what it wrote before: five pickles and the bytes of the tensors
        for _ in range(5):
            check_pickle(file, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other protocols; what is wrong is said below
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path, file: BinaryIO) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(f"reading {path} needs the package safetensors: pip install safetensors") from None
    # The first eight bytes are the size of the list of tensors.
    list_size = int.from_bytes(file.read(8), "little")
    if list_size > MAX_SAFETENSORS_HEADER or file.read(list_size).count(b'"dtype"') > MAX_TENSORS:
        raise CheckpointError(
            f"{path} is not a safetensors file, or is damaged: its list of tensors would have more than "
            f"{MAX_SAFETENSORS_HEADER // 2**20} MB or {MAX_TENSORS} tensors"
        )
    try:
        return load_file(path)
    except (SafetensorError, *_DAMAGE) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file, or is cut short or damaged: {printable(str(error))[:200]}"
        ) from None


def save_checkpoint(contents: Mapping[str, Any], path: str | Path) -> None:
    """Write plain containers and tensors so that at any instant `path` is absent, the old file, or the new one, whole.

    Raises CheckpointError, the old file intact, if it cannot be written.
    """
    try:
        with replacing(path) as file:
            torch.save(dict(contents), file)
    except (OSError, RuntimeError) as error:
        # Closing its archive after a full disk or a Ctrl-C, torch raises a RuntimeError over what has happened.
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        if not isinstance(cause, OSError):
            raise
        raise CheckpointError(
            f"cannot write checkpoint {path}: {cause.strerror or cause}; free some space or write elsewhere"
        ) from None


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict strictly, after checking all of it, as `fitting_state` does. `state` stays as it is.

    Raises CheckpointError naming `source` and the first keys that do not fit; then nothing is loaded.
    """
    module.load_state_dict(fitting_state(module.state_dict(), state, source), strict=True)


def fitting_state(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The tensors of `state` for a model whose state dict is `expected`, each with the model's number type.

    BatchNorm's step counts may be absent or too many. A prefix that all keys have is left out: `without_prefix`.
    Raises CheckpointError naming `source` and the first keys that are missing, unexpected or mis-shaped, or whose values are
    no floating-point numbers, or not finite in the model's type, or negative variances.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{source} does not fit the model: it holds a {type(state).__name__}, not a state dict")
    _check_keys([key for key, value in state.items() if not is_named_tensor(key, value)], "keys without a tensor", source)
    state = without_prefix(state, expected, source)
    unexpected = [key for key in state if key not in expected and not _is_counter(key)]
    instead = f"; the file has {first_names(unexpected)}" if unexpected else ""
    _check_keys([key for key in expected if key not in state and not _is_counter(key)], "missing keys", source, instead)
    _check_keys(unexpected, "unexpected keys", source)
    chosen = {key: value for key, value in state.items() if key in expected}
    for key, value in chosen.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{source} does not fit the model: '{key}' has shape {tuple(value.shape)}, "
                f"the model's has {tuple(expected[key].shape)}; take weights of the same architecture"
            )
    return {key: _checked_values(key, value, expected[key].dtype, source) for key, value in chosen.items()}


WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "network.", "encoder.", "student.", "teacher.", "ema.")
"""Prefixes that wrappers put before every key: data-parallel training, torch.compile, Lightning, the parts of a method."""


def without_prefix(state: Mapping[str, Tensor], expected: Collection[str], source: str) -> dict[str, Tensor]:
    """The state dict without the known prefixes that all its keys have, and no expected key has; says so in the log.

    torch.compile's prefix is also left out inside of a key, where it stands for a part that was compiled.
    """
    result = dict(state)
    if "_orig_mod." in "".join(result) and not any("_orig_mod." in key for key in expected):
        shorter = {key.replace("_orig_mod.", ""): value for key, value in result.items()}
        if len(shorter) == len(result):
            result = shorter
    while found := shared_prefix(result, expected):
        result = {key: value for key, value in result.items() if key not in WRAPPERS_OWN}
        result = {key.removeprefix(found): value for key, value in result.items()}
    if result.keys() != state.keys():
        logger.warning(
            "%s: the keys are taken without what a wrapper put before them: %s is %s",
            source,
            *(shorten(next(iter(each))) for each in (state, result)),
        )
    return result


WRAPPERS_OWN = ("n_averaged",)
"""Keys beside those with a prefix: the count of torch's AveragedModel."""


def shared_prefix(keys: Collection[str], expected: Collection[str] = ()) -> str | None:
    """The known prefix that all keys but a wrapper's own have, and no expected key has; None if there is none."""
    keys = [key for key in keys if key not in WRAPPERS_OWN]
    for prefix in WRAPPERS:
        if keys and all(key.startswith(prefix) for key in keys) and not any(key.startswith(prefix) for key in expected):
            return prefix
    return None


def wrapper_prefixes(keys: Collection[str]) -> list[str]:
    """What could be left out before all the keys: nothing, their known prefix, that with the next one, and so on."""
    prefixes, rest = [""], list(keys)
    while found := shared_prefix(rest):
        prefixes.append(prefixes[-1] + found)
        rest = [key.removeprefix(found) for key in rest]
    return prefixes


_WEIGHT_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_COUNT_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _checked_values(key: str, value: Tensor, dtype: torch.dtype, source: str) -> Tensor:
    """The tensor in the model's number type, if its values are ones that a model can compute with."""
    if (fault := tensor_fault(value)) is not None:
        raise CheckpointError(f"{source}: '{key}' is {fault}; save plain tensors")
    if not dtype.is_floating_point:  # a step count, which some projects keep as a floating-point number
        if value.dtype not in (*_COUNT_TYPES, *_WEIGHT_TYPES) or not bool(((value >= 0) & (value < 2**62)).all()):
            raise CheckpointError(f"{source}: '{key}' must hold whole numbers from 0 on, but holds others; take another copy")
        return value.detach().to(dtype)
    if value.dtype not in _WEIGHT_TYPES:
        kind = str(value.dtype).removeprefix("torch.")
        raise CheckpointError(f"{source}: '{key}' holds {kind}, weights are float32, float16, bfloat16 or float64; convert it")
    cast = value.detach().to(dtype)
    lowest, highest = cast.aminmax() if cast.numel() else (cast.new_zeros(()), cast.new_zeros(()))  # both NaN where one is
    if not bool(lowest.isfinite() & highest.isfinite()):
        if bool(value.isfinite().all()):
            raise CheckpointError(f"{source}: '{key}' holds numbers too large for {str(dtype).removeprefix('torch.')}")
        raise CheckpointError(f"{source}: '{key}' holds NaN or infinity; take a checkpoint from before training diverged")
    if key.rpartition(".")[2] == "running_var" and bool(lowest < 0):
        raise CheckpointError(f"{source}: '{key}' is negative, which no variance is; take a file that is not damaged")
    return cast


def _check_keys(keys: list[str], problem: str, source: str, instead: str = "") -> None:
    if keys:
        found = f"{len(keys)} {problem}: {first_names(keys)}{instead}"
        raise CheckpointError(f"{source} does not fit the model: {found}; take weights of the same architecture")


def is_named_tensor(key: Any, value: Any) -> bool:
    """Whether this could be an item of a state dict."""
    return isinstance(key, str) and isinstance(value, Tensor)


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == "num_batches_tracked"
