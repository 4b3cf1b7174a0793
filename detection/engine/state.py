"""Where a run stands, and its way into a checkpoint and back.

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
from backbones.weights.files import load_checkpoint, load_state
from detection.config import ClassifierConfig, Config, TrainConfig
from detection.engine.distributed import World, gather
from detection.engine.log import METRICS_FILE
from detection.engine.optim import learning_rate
from detection.engine.window import Window
from detection.errors import TrainingError
from detection.weights.checkpoint import model_part, require_kind

LAST, BEST = "last.pt", "best.pt"

# Keys that may differ when a run is resumed: none changes what is computed.
HARMLESS = frozenset(
    (
        "output_dir",
        "model.weights",
        "data.workers",
        "data.test",
        "test.batch_size",
        "train.log_every",
        "train.checkpoint_every",
        "train.eval_every",
    )
)


@dataclass
class TrainState:
    """The position of a run. `evaluated` is the step of the last evaluation; `best` holds metric, value and step.

    `drops` of the rate were made by a "plateau" schedule, and `stale` evaluations brought nothing since the last; `warm`:
    the warm-up that waits for the training error is over.
    """

    step: int = 0
    evaluated: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    seconds: float = 0.0
    drops: int = 0
    stale: int = 0
    warm: bool = True


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
    average: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    window: Window,
    config: TrainConfig,
    world: World,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """A training checkpoint. To be called by all processes: each gives its random generators and its log window."""
    return {
        **model_part(model, metadata),
        "step": state.step,
        "average": None if average is None else average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {
            "step": state.step,
            "learning_rate": learning_rate(state.step, config, drops=state.drops, warm=state.warm),
            "config": config.model_dump(mode="json"),
        },
        "sampler": {"batch": state.step * config.accumulate, "seed": config.seed, "world_size": world.size},
        "rng": gather(world, rng_state()),
        "windows": gather(world, window.state()),
        "best": state.best,
        "progress": asdict(state),
    }


def restore(
    checkpoint: Mapping[str, Any],
    path: Path,
    model: nn.Module,
    average: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
    world: World,
) -> tuple[TrainState, Window]:
    """Put a training checkpoint back into this process. Raises CheckpointError where the model is another."""
    load_state(model, checkpoint["model"], str(path))
    detector: Any = model
    if isinstance(getattr(detector, "preprocessing", None), Preprocessing):
        # It belongs to the weights, but is no tensor: a state dict cannot carry it.
        detector.preprocessing = Preprocessing.from_dict(checkpoint["preprocessing"])
    if average is not None:
        load_state(average, checkpoint["average"], str(path))
    try:
        optimizer.load_state_dict(checkpoint["optimizer"])
    except ValueError as error:
        raise CheckpointError(f"{path}: the optimizer's parameters are not this model's: {error}") from None
    set_rng_state(checkpoint["rng"][world.rank])
    return TrainState(**checkpoint["progress"]), Window.from_state(checkpoint["windows"][world.rank])


def claim_output_dir(output_dir: Path) -> None:
    """Raise TrainingError where a new run would overwrite another."""
    for name in (LAST, BEST, METRICS_FILE):
        if (output_dir / name).exists():
            raise TrainingError(
                f"{output_dir} holds another run ({name}): continue it with --resume, or choose another --output-dir"
            )


def has_begun(output_dir: Path) -> bool:
    """Whether there is a run to go on with; the first steps of alternating training lie in folders of `output_dir`."""
    return any(output_dir.rglob(LAST))


def open_run(output_dir: Path, metadata: Mapping[str, Any], config: TrainConfig, world: World) -> dict[str, Any]:
    """The last checkpoint of a run that is to go on. `config` is already scaled.

    Raises TrainingError where there is none, or where the new settings would not continue it.
    """
    path = output_dir / LAST
    if not path.exists():
        raise TrainingError(f"nothing to resume: {path} does not exist; start without --resume, or name the run's --output-dir")
    checkpoint = load_checkpoint(path)
    require_kind(checkpoint, metadata["kind"], path)
    if "optimizer" not in checkpoint:
        raise CheckpointError(f"{path} holds a model but no training state; pass it as --weights to start a new run from it")
    written_by = checkpoint["sampler"]["world_size"]
    if written_by != world.size:
        raise TrainingError(
            f"{path} was written by {written_by} process(es) and this run has {world.size}: each process has its own part of "
            f"the data; resume with as many, or start a new run with --weights {path}"
        )
    _refuse_changes(checkpoint, metadata, config, path)
    return checkpoint


def _refuse_changes(checkpoint: Mapping[str, Any], metadata: Mapping[str, Any], config: TrainConfig, path: Path) -> None:
    # A run may be older than a key of today: it was made with what has become the key's default.
    defaults = (ClassifierConfig if metadata["kind"] == "classifier" else Config)().model_dump(mode="json")
    new_keys = _flat(metadata["config"]).keys()
    known = {key: value for key, value in _flat(defaults).items() if key in new_keys}
    old = known | _flat(checkpoint["config"]) | _flat({"class_names": list(checkpoint["class_names"])})
    new = _flat(metadata["config"]) | _flat({"class_names": list(metadata["class_names"])})
    changed = [key for key in old | new if old.get(key) != new.get(key) and not _harmless(key)]
    if config.steps >= checkpoint["scheduler"]["config"]["steps"]:
        changed = [key for key in changed if key != "train.steps"]  # a longer run is a continuation
    if changed:
        listed = ", ".join(f"{key} ({old.get(key)} -> {new.get(key)})" for key in changed)
        raise TrainingError(
            f"the settings differ from those of {path}: {listed}; resume with the run's own, "
            f"or start a new run in another --output-dir"
        )


def _harmless(key: str) -> bool:
    return any(key == name or key.startswith(name + ".") for name in HARMLESS)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'train': {'steps': 5}} -> {'train.steps': 5}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
