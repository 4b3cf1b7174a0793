"""The state of a run: how it is put into a checkpoint, and restored.

Random numbers: every process seeds torch, NumPy and `random` from (seed, micro-batch number, rank) before each forward
pass, so that a run is a function of its position and a resumed one repeats it exactly. The generators' states are kept
in the checkpoint as well, for code that draws outside of the forward pass.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from backbones.errors import CheckpointError
from backbones.preprocessing import Preprocessing
from backbones.weights.files import load_state
from detection.config import ClassifierConfig, Config, TrainConfig
from detection.engine.distributed import World, all_gather
from detection.engine.log import METRICS_FILE
from detection.engine.optim import learning_rate
from detection.engine.window import LogWindow
from detection.errors import TrainingError
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
        "test.batch_size",
        "train.log_every",
        "train.checkpoint_every",
        "train.eval_every",
        "train.connect_timeout",
        "train.collective_timeout",
    )
)


@dataclass(frozen=True)
class BestEvaluation:
    """The evaluation whose weights are in best.pt."""

    metric: str  # the key of the metric that is compared
    value: float
    step: int


@dataclass
class TrainState:
    """The position of a run, as its checkpoints keep it."""

    step: int = 0  # steps done
    evaluated: int = 0  # the step of the last evaluation
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    best: BestEvaluation | None = None
    seconds: float = 0.0  # of all parts of the run
    drops: int = 0  # how often a "plateau" schedule has dropped the rate
    stale: int = 0  # evaluations in a row without a better value
    warm: bool = True  # False while a warm-up waits for the training error

    def best_as_dict(self) -> dict[str, Any] | None:
        """`best` as plain data, for a checkpoint."""
        return None if self.best is None else asdict(self.best)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TrainState:
        """The inverse of `dataclasses.asdict`."""
        best = values["best"]
        return TrainState(**{**values, "best": None if best is None else BestEvaluation(**best)})


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
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """The inverse of `rng_state`; CUDA's part is skipped on a machine without it."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    algorithm, keys, *rest = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def snapshot(
    model: nn.Module,
    ema: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
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


def restore(
    checkpoint: Checkpoint,
    path: Path,
    model: nn.Module,
    ema: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
    world: World,
) -> tuple[TrainState, LogWindow]:
    """Put a training checkpoint back into this process. Raises CheckpointError where the model is another."""
    training = checkpoint.training
    load_state(model, checkpoint.state, str(path))
    detector: Any = model
    if isinstance(getattr(detector, "preprocessing", None), Preprocessing):
        # It belongs to the weights, but is no tensor: a state dict cannot carry it.
        detector.preprocessing = checkpoint.metadata.preprocessing
    if ema is not None:
        load_state(ema, training["ema"], str(path))
    try:
        optimizer.load_state_dict(training["optimizer"])
    except ValueError as error:
        raise CheckpointError(f"{path}: the optimizer's parameters are not this model's: {error}") from None
    set_rng_state(training["rng"][world.rank])
    return TrainState.from_dict(training["progress"]), LogWindow.from_state(training["windows"][world.rank])


def require_no_other_run(output_dir: Path) -> None:
    """Raise TrainingError where a new run would overwrite another."""
    for name in (LAST, BEST, METRICS_FILE):
        if (output_dir / name).exists():
            raise TrainingError(
                f"{output_dir} holds another run ({name}): resume it (--resume), or choose another output folder (--output-dir)"
            )


def has_begun(output_dir: Path) -> bool:
    """Whether there is a run to go on with; the first steps of alternating training lie in folders of `output_dir`."""
    return any(output_dir.rglob(LAST))


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
    if "optimizer" not in checkpoint.training:
        raise CheckpointError(
            f"{path} holds a model but no training state; start a new run from it, as model.weights (--weights)"
        )
    written_by = checkpoint.training["sampler"]["world_size"]
    if written_by != world.size:
        raise TrainingError(
            f"{path} was written by {written_by} process(es) and this run has {world.size}: each process has its own part of "
            f"the data; resume with as many, or start a new run from model.weights={path} (--weights)"
        )
    _refuse_changes(checkpoint, metadata, config, path)
    return checkpoint


def _refuse_changes(checkpoint: Checkpoint, metadata: CheckpointMetadata, config: TrainConfig, path: Path) -> None:
    """Raise TrainingError, naming each key, where settings differ that change what is computed."""
    # A run may be older than a key of today: it was made with what has become the key's default.
    defaults = (ClassifierConfig if metadata.kind == "classifier" else Config)().model_dump(mode="json")
    new = _flat(metadata.config) | {"class_names": list(metadata.class_names)}
    known = {key: value for key, value in _flat(defaults).items() if key in new}
    old = known | _flat(checkpoint.metadata.config) | {"class_names": list(checkpoint.metadata.class_names)}
    changed = [key for key in old | new if old.get(key) != new.get(key) and not _may_change(key)]
    if config.steps >= checkpoint.training["scheduler"]["config"]["steps"]:
        changed = [key for key in changed if key != "train.steps"]  # a longer run is a continuation
    if changed:
        listed = ", ".join(f"{key} ({old.get(key)} -> {new.get(key)})" for key in changed)
        raise TrainingError(
            f"the settings differ from those of {path}: {listed}; resume with the run's own, "
            f"or start a new run in another output folder (--output-dir)"
        )


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith(name + ".") for name in MAY_CHANGE_ON_RESUME)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'train': {'steps': 5}} -> {'train.steps': 5}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
