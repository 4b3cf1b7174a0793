"""The state of a run: how it is put into a checkpoint, and restored.

Random numbers: every process seeds torch, NumPy and `random` from (seed, micro-batch number, rank) before each forward
pass, so that a run is a function of its position and a resumed one repeats it exactly. The generators' states are kept
in the checkpoint as well, for code that draws outside of the forward pass.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim.swa_utils import AveragedModel

from backbones.errors import CheckpointError, printable, shorten
from backbones.preprocessing import Preprocessing
from backbones.weights.files import load_state
from backbones.weights.format import Kind
from detection.config import ClassifierConfig, Config, LocConfig, TrainConfig
from detection.device import uses_cuda
from detection.engine.distributed import World, all_gather
from detection.engine.optim import learning_rate
from detection.engine.saved_state import (
    SavedGenerators,
    TrainState,
    numpy_state,
    optimizer_fault,
    parse_training,
    python_state,
)
from detection.engine.window import LogWindow
from detection.errors import TrainingError
from detection.files import METRICS_FILE
from detection.weights.checkpoint import Checkpoint, CheckpointMetadata, read_checkpoint

LAST, BEST = "last.pt", "best.pt"

# Config keys, or sections of them, that do not change what is computed.
MAY_CHANGE_ON_RESUME = frozenset(
    (
        "output_dir",
        "model.weights",
        "data.workers",
        "data.loader_timeout",
        "data.test",
        "data.val.file",
        "test.batch_size",
        "train.log_every",
        "train.checkpoint_every",
        "train.eval_every",
        "train.stop_patience",
        "train.validation_losses",
        "train.connect_timeout",
        "train.collective_timeout",
    )
)
# Of the stages of localisation: the sections that other stages and the evaluation are computed with.
_OTHER_STAGES: Mapping[str, tuple[str, ...]] = {
    "loc_rpn": ("rcnn", "rcnn_train", "test", "classifier"),
    "loc_rcnn": ("rpn_train", "test", "classifier"),
}
_CONFIGS: Mapping[str, type[Config] | type[ClassifierConfig] | type[LocConfig]] = {
    "detector": Config,
    "classifier": ClassifierConfig,
    "loc_rpn": LocConfig,
    "loc_rcnn": LocConfig,
}


def seed_everything(seed: int, micro_batch: int, rank: int) -> None:
    """Make the random numbers of one forward pass a function of its place in the run."""
    mixed = np.random.SeedSequence([seed % 2**64, micro_batch, rank]).generate_state(2)
    random.seed(int(mixed[0]))
    np.random.seed(int(mixed[0]))
    torch.manual_seed(int(mixed[0]) << 32 | int(mixed[1]))


def rng_state() -> dict[str, Any]:
    """The states of this process's random generators, as plain values and tensors."""
    numpy_state: Any = np.random.get_state()
    algorithm, keys, *rest = numpy_state
    return {
        "python": random.getstate(),
        "numpy": [algorithm, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if uses_cuda() else None,
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """The inverse of `rng_state`; CUDA's part is skipped in a process that does not use it."""
    saved = SavedGenerators(**state)
    random.setstate(python_state(saved))
    np.random.set_state(numpy_state(saved))
    torch.set_rng_state(saved.torch)
    if saved.cuda is not None and uses_cuda():
        torch.cuda.set_rng_state(saved.cuda)


@contextmanager
def unmoved_generators() -> Iterator[None]:
    """A context after which this process's random generators stand where they stood before it."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def snapshot(
    model: nn.Module,
    ema: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    state: TrainState,
    window: LogWindow,
    config: TrainConfig,
    world: World,
    metadata: CheckpointMetadata,
) -> Checkpoint:
    """A checkpoint to resume from. To be called by all processes: each gives its random generators and its log window."""
    training = {
        "step": state.step,
        "ema": None if ema is None else ema.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler_state(scaler),
        "scheduler": {
            "step": state.step,
            "learning_rate": learning_rate(state.step, config, drops=state.drops, warm=state.warm),
            "config": config.model_dump(mode="json"),
        },
        "sampler": {"batch": state.step * config.accumulate, "seed": config.seed, "world_size": world.size},
        "rng": all_gather(world, rng_state()),
        "windows": all_gather(world, window.state()),
        "best": state.best_as_dict(),
        "progress": asdict(state),
    }
    return Checkpoint(metadata, model.state_dict(), training)


def scaler_state(scaler: torch.amp.GradScaler) -> dict[str, Any] | None:
    """What of a scaler changes while it works; None where it is disabled."""
    state = scaler.state_dict()
    return {"scale": state["scale"], "steps_since_change": state["_growth_tracker"]} if state else None


def restore(
    checkpoint: Checkpoint,
    path: Path,
    model: nn.Module,
    ema: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    world: World,
) -> tuple[TrainState, LogWindow]:
    """Put a training checkpoint back into this process.

    Raises CheckpointError where the model is another, or the training part cannot be; then nothing but weights is changed.
    """
    saved = parse_training(checkpoint, path)
    if ema is not None and saved.ema is None:
        raise CheckpointError(f"{path} cannot be resumed: it lacks training.ema, the averaged weights; take another copy of it")
    if scaler.is_enabled() and saved.scaler is None:
        raise CheckpointError(
            f"{path} cannot be resumed in fp16: it lacks training.scaler, the scale of the losses; resume it on the device "
            f"that it ran on, or start a new run from it as model.weights (--weights)"
        )
    if fault := optimizer_fault(saved.optimizer, optimizer, saved.progress.step - saved.progress.skipped_steps):
        raise CheckpointError(f"{path} cannot be resumed: {fault}; take another copy of it")
    load_state(model, checkpoint.state, str(path))
    detector: Any = model
    if isinstance(getattr(detector, "preprocessing", None), Preprocessing):
        # It belongs to the weights, but is no tensor: a state dict cannot carry it.
        detector.preprocessing = checkpoint.metadata.preprocessing
    if ema is not None and saved.ema is not None:
        load_state(ema, saved.ema, f"{path} (training.ema)")
    # The numbers of the groups are this run's own, as `optimizer_fault` has seen; but the rate is the last step's.
    own, theirs = optimizer.state_dict()["param_groups"], saved.optimizer.param_groups
    groups = [group | {"lr": saved_group["lr"]} for group, saved_group in zip(own, theirs, strict=True)]
    optimizer.load_state_dict({"state": saved.optimizer.state, "param_groups": groups})
    if scaler.is_enabled() and saved.scaler is not None:
        own_state = scaler.state_dict()
        scaler.load_state_dict(own_state | {"scale": saved.scaler.scale, "_growth_tracker": saved.scaler.steps_since_change})
    set_rng_state(checkpoint.training["rng"][world.rank])
    window = saved.windows[world.rank]
    return saved.progress, LogWindow.from_state({"totals": window.totals, "counts": window.counts})


def require_no_other_run(output_dir: Path) -> None:
    """Raise TrainingError where a new run would overwrite another."""
    for name in (LAST, BEST, METRICS_FILE):
        if (output_dir / name).exists():
            raise TrainingError(
                f"{output_dir} holds another run ({name}): resume it (--resume), or choose another output folder (--output-dir)"
            )


def has_begun(output_dir: Path, folders: Sequence[str] = (".",)) -> bool:
    """Whether there is a run to go on with in one of these folders of `output_dir`; other folders in it are other runs'."""
    return any((output_dir / folder / LAST).exists() for folder in folders)


def read_last_checkpoint(output_dir: Path, metadata: CheckpointMetadata, config: TrainConfig, world: World) -> Checkpoint:
    """The last checkpoint of the run to resume. `metadata` and `config` are those of the new call; `config` is scaled.

    Raises TrainingError where there is none, or where the new settings would not continue it.
    """
    path = output_dir / LAST
    if not path.exists():
        raise TrainingError(
            f"nothing to resume: {path} does not exist; start a new run (without --resume), or name the folder of the run to "
            f"resume (--output-dir)"
        )
    checkpoint = read_checkpoint(path, metadata.kind)
    saved = parse_training(checkpoint, path)
    written_by = saved.sampler.world_size
    if written_by != world.size:
        raise TrainingError(
            f"{path} was written by {written_by} process(es) and this run has {world.size}: each process has its own part of "
            f"the data; resume with as many, or start a new run from model.weights={path} (--weights)"
        )
    if not len(saved.rng) == len(saved.windows) == world.size:
        raise CheckpointError(
            f"{path} cannot be resumed: training.rng is of {len(saved.rng)} and training.windows of {len(saved.windows)} "
            f"processes, not of {world.size}; take another copy of it"
        )
    # A longer run is a continuation.
    _refuse_changes(checkpoint, metadata, path, may_be_longer=config.steps >= saved.scheduler.config["steps"])
    return checkpoint


def require_same_settings(path: Path, metadata: CheckpointMetadata) -> None:
    """Raise TrainingError where a run that is over, and on which others are built, was made with other settings than a new
    call's `metadata` has; CheckpointError where its checkpoint cannot be read."""
    _refuse_changes(read_checkpoint(path, metadata.kind), metadata, path, may_be_longer=False)


def _refuse_changes(checkpoint: Checkpoint, metadata: CheckpointMetadata, path: Path, *, may_be_longer: bool) -> None:
    """Raise TrainingError, naming each key, where settings differ that change what is computed."""
    new = _flat(metadata.config) | {"class_names": list(metadata.class_names)}
    old = with_new_keys(checkpoint.metadata, new) | {"class_names": list(checkpoint.metadata.class_names)}
    kind = metadata.kind
    changed = [key for key in old | new if old.get(key) != new.get(key) and not _may_change(key, kind)]
    if may_be_longer:
        changed = [key for key in changed if _own_key(key, kind) != "train.steps"]
    if changed:
        listed = ", ".join(f"{printable(key)} ({_shown(old.get(key))} -> {_shown(new.get(key))})" for key in changed)
        raise TrainingError(
            f"the settings differ from those of {path}: {listed}; resume with the run's own, "
            f"or start a new run in another output folder (--output-dir)"
        )


def with_new_keys(metadata: CheckpointMetadata, wanted: Iterable[str]) -> dict[str, Any]:
    """The flat config of a run that may be older than a key of today, also one of a source of data.

    Such a key, where it is among the `wanted`, has its default: that is what the run was made with.
    """
    kind = _CONFIGS[metadata.kind]
    written = _flat(metadata.config)
    try:
        read = _flat(kind.model_validate(dict(metadata.config)).model_dump(mode="json"))
    except ValidationError:  # with keys of another version, which are then named as a change
        read = _flat(kind().model_dump(mode="json")) | written
    return {key: value for key, value in (written | read).items() if key in written or key in wanted}


def _shown(value: object) -> str:
    return printable(value)[:120] if isinstance(value, str) else shorten(value)


def _may_change(key: str, kind: Kind) -> bool:
    names, own = [*MAY_CHANGE_ON_RESUME, *_OTHER_STAGES.get(kind, ())], _own_key(key, kind)
    return any(own == name or own.startswith(name + ".") for name in names)


def _own_key(key: str, kind: Kind) -> str:
    """A key of the solver of a stage of localisation as a detector's: `rpn_train.steps` -> `train.steps`."""
    section = {"loc_rpn": "rpn_train.", "loc_rcnn": "rcnn_train."}.get(kind)
    return key if section is None or not key.startswith(section) else "train." + key.removeprefix(section)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'train': {'steps': 5}} -> {'train.steps': 5}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
