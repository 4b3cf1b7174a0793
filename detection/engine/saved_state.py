"""The training part of a checkpoint, as plain values: its fields and their bounds, checked before a run goes on from them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from backbones.errors import CheckpointError, shorten
from backbones.weights.format import is_plain
from detection.weights.checkpoint import Checkpoint

_KNOWN_FIELDS = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
_Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
_Number = Annotated[float, Field(strict=True)]
_Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Bool = Annotated[bool, Field(strict=True)]


@dataclass(frozen=True)
class BestEvaluation:
    """The evaluation whose weights are in best.pt."""

    __pydantic_config__ = _KNOWN_FIELDS

    metric: str  # the key of the metric that is compared
    value: _Finite
    step: _Count


@dataclass
class TrainState:
    """The position of a run, as its checkpoints keep it."""

    __pydantic_config__ = _KNOWN_FIELDS

    step: _Count = 0  # steps done
    evaluated: _Count = 0  # the step of the last evaluation
    metrics: dict[str, _Number] = field(default_factory=dict)  # of the last evaluation
    best: BestEvaluation | None = None
    seconds: _Seconds = 0.0  # of all parts of the run
    drops: _Count = 0  # how often a "plateau" schedule has dropped the rate
    stale: _Count = 0  # evaluations in a row without a better value, since the last drop
    since_best: _Count = 0  # evaluations in a row without a better value
    warm: _Bool = True  # False while a warm-up waits for the training error
    skipped_steps: _Count = 0  # whose gradients overflowed in fp16

    def best_as_dict(self) -> dict[str, Any] | None:
        """`best` as plain data, for a checkpoint."""
        return None if self.best is None else asdict(self.best)


@dataclass(frozen=True)
class SavedSchedule:
    """The learning rate of the next step, and the scaled solver's settings that it follows from."""

    __pydantic_config__ = _KNOWN_FIELDS

    step: _Count
    learning_rate: _Finite
    config: dict[str, Any]


@dataclass(frozen=True)
class SavedSampler:
    """The place in the data: the next micro-batch of each process, and what the order depends on."""

    __pydantic_config__ = _KNOWN_FIELDS

    batch: _Count
    seed: Annotated[int, Field(strict=True)]
    world_size: Annotated[int, Field(strict=True, ge=1)]


@dataclass(frozen=True)
class SavedOptimizer:
    """An optimizer's state dict: tensors and numbers by the number of the parameter, and the groups of parameters."""

    __pydantic_config__ = _KNOWN_FIELDS

    state: dict[_Count, dict[str, Any]]
    param_groups: list[dict[str, Any]]


@dataclass(frozen=True)
class SavedScaler:
    """What fp16's losses are multiplied by, and the steps since that was changed."""

    __pydantic_config__ = _KNOWN_FIELDS

    scale: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    steps_since_change: _Count


@dataclass(frozen=True)
class SavedWindow:
    """A process's sums since the last log line."""

    __pydantic_config__ = _KNOWN_FIELDS

    totals: dict[str, _Finite]
    counts: dict[str, _Count]


@dataclass(frozen=True)
class SavedGenerators:
    """The states of a process's random generators, each as its library gives it."""

    __pydantic_config__ = _KNOWN_FIELDS

    python: tuple[Any, Sequence[Any], Any]
    numpy: list[Any]
    torch: Tensor
    cuda: Tensor | None = None


@dataclass(frozen=True)
class SavedTraining:
    """All that a run goes on from, besides the weights: `training` of a checkpoint. `rng` and `windows`: one per process."""

    __pydantic_config__ = ConfigDict(extra="ignore", arbitrary_types_allowed=True)

    step: _Count
    optimizer: SavedOptimizer
    scheduler: SavedSchedule
    sampler: SavedSampler
    rng: list[SavedGenerators]
    windows: list[SavedWindow]
    progress: TrainState
    ema: Mapping[str, Any] | None = None
    best: BestEvaluation | None = None
    scaler: SavedScaler | None = None


_ADAPTER = TypeAdapter(SavedTraining)
_FIX = "take another copy of the file, or start a new run from it as model.weights (--weights)"


def parse_training(checkpoint: Checkpoint, path: Path) -> SavedTraining:
    """The training part of a checkpoint. Raises CheckpointError naming the file and the fields that cannot be."""
    if "optimizer" not in checkpoint.training:
        raise CheckpointError(
            f"{path} holds a model but no training state; start a new run from it, as model.weights (--weights)"
        )
    try:
        saved = _ADAPTER.validate_python(dict(checkpoint.training))
    except ValidationError as error:
        faults = "; ".join(_explain(item) for item in error.errors(include_url=False)[:3])
        raise CheckpointError(f"{path} cannot be resumed: {faults}; {_FIX}") from None
    if fault := _contradiction(saved):
        raise CheckpointError(f"{path} cannot be resumed: {fault}; {_FIX}")
    for rank, generators in enumerate(saved.rng):
        if fault := _generators_fault(generators):
            raise CheckpointError(f"{path} cannot be resumed: training.rng.{rank}.{fault}; {_FIX}")
    return saved


def _explain(item: Any) -> str:
    """One of pydantic's errors as a phrase."""
    name = ".".join(str(part) if isinstance(part, int) else shorten(part)[1:-1] for part in ("training", *item["loc"]))
    if item["type"] in ("missing", "missing_argument"):
        return f"it lacks {name}"
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{name} is not known here"
    message = item["msg"].removeprefix("Input ").replace("an instance of SavedOptimizer", "a mapping")
    return f"{name} is {shorten(item['input'])}, and {message[0].lower()}{message[1:]}"


def _contradiction(saved: SavedTraining) -> str | None:
    """Fields that fit alone and not together; None if all do."""
    steps = saved.scheduler.config.get("steps")
    for name, step in (("step", saved.step), ("scheduler.step", saved.scheduler.step)):
        if step != saved.progress.step:
            return f"training.{name} is {step}, training.progress.step {saved.progress.step}"
    if type(steps) is not int or not saved.progress.step <= steps:
        return f"training.progress.step is {saved.progress.step}, training.scheduler.config.steps {shorten(steps)}"
    if any(step > saved.progress.step for step in (saved.progress.evaluated, saved.best.step if saved.best else 0)):
        return "an evaluation in it is later than its last step"
    for number, window in enumerate(saved.windows):
        if window.totals.keys() != window.counts.keys() or 0 in window.counts.values():
            return f"training.windows.{number} has sums without a count, or counts without a sum"
    return None


def _generators_fault(state: SavedGenerators) -> str | None:
    """Which generator does not take its state; None if all do. Tried on generators of its own."""
    try:
        part = "python"
        random.Random().setstate(python_state(state))
        part = "numpy"
        np.random.RandomState().set_state(numpy_state(state))
        part = "torch"
        torch.Generator().set_state(state.torch)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        return f"{part} is no state of that generator ({' '.join(str(error).split())[:100]})"
    if state.cuda is not None and state.cuda.dtype != torch.uint8:
        return "cuda is no state of that generator"
    return None


def python_state(state: SavedGenerators) -> tuple[Any, ...]:
    """For `random.setstate`."""
    version, numbers, gauss = state.python
    return version, tuple(numbers), gauss


def numpy_state(state: SavedGenerators) -> Any:
    """For `numpy.random.set_state`, which takes 32 of the 64 bits that a tensor keeps of each number."""
    algorithm, keys, *rest = state.numpy
    if not isinstance(keys, Tensor) or keys.dtype != torch.int64 or keys.shape != (624,):
        raise ValueError("its keys are not 624 whole numbers")
    return algorithm, keys.numpy().astype(np.uint32), *rest


@dataclass(frozen=True)
class _OptimizerLayout:
    """What an optimizer's state dict holds beside the rates."""

    numbers: tuple[str, ...]  # of a group: they must be this run's
    buffers: tuple[str, ...]  # of a parameter, in its shape
    count: str | None = None  # of its steps, a scalar tensor
    squares: str | None = None  # the buffer that is nowhere negative


_LAYOUTS: dict[type, _OptimizerLayout] = {
    torch.optim.SGD: _OptimizerLayout(("weight_decay", "momentum", "dampening", "nesterov"), ("momentum_buffer",)),
    torch.optim.AdamW: _OptimizerLayout(
        ("weight_decay", "betas", "eps", "amsgrad"), ("exp_avg", "exp_avg_sq"), count="step", squares="exp_avg_sq"
    ),
}


def optimizer_fault(saved: SavedOptimizer, optimizer: torch.optim.Optimizer, steps_done: int) -> str | None:
    """How the saved state differs from what this optimizer can have after `steps_done` steps of its own; None if it fits."""
    own, layout = optimizer.state_dict()["param_groups"], _LAYOUTS[type(optimizer)]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not is_plain(saved.param_groups) or [group.get("params") for group in saved.param_groups] != [
        group["params"] for group in own
    ]:
        return "the optimizer's parameters are not this model's"
    for number, (theirs, ours) in enumerate(zip(saved.param_groups, own, strict=True)):
        if fault := _group_fault(theirs, ours, layout):
            return f"training.optimizer.param_groups.{number}.{fault}"
    for number, values in saved.state.items():
        if number >= len(parameters):
            return f"training.optimizer.state.{number} is of none of the {len(parameters)} parameters"
        if fault := _state_fault(values, parameters[number], layout):
            return f"training.optimizer.state.{number}{fault}"
    if steps_done and not saved.state and any(group.get("momentum", 1) for group in own):
        return "training.optimizer.state is empty, after steps that left some"
    return None


def _group_fault(theirs: Mapping[str, Any], ours: Mapping[str, Any], layout: _OptimizerLayout) -> str | None:
    rate = theirs.get("lr")
    if not isinstance(rate, bool | int | float) or not 0 <= rate < 1e300:
        return f"lr is {shorten(rate)}, this run's is {ours['lr']}"
    for key in layout.numbers:
        if theirs.get(key) != ours[key]:
            return f"{key} is {shorten(theirs.get(key))}, this run's is {ours[key]}"
    return None


def _state_fault(values: Mapping[str, Any], parameter: Tensor, layout: _OptimizerLayout) -> str | None:
    known = {*layout.buffers, *([layout.count] if layout.count else [])}
    if values.keys() - known or (layout.count and values.keys() != known):
        return f" has {shorten(sorted(map(str, values)))}, not {' and '.join(sorted(known))}"
    for key, value in values.items():
        like = torch.zeros(()) if key == layout.count else parameter
        if value is None and layout.count is None:  # SGD's buffer before its first step
            continue
        if fault := _buffer_fault(value, like):
            return f".{key} {fault}"
        if (key == layout.count and value < 1) or (key == layout.squares and bool((value < 0).any())):
            return f".{key} holds {float(value.min()):g}"
    return None


def _buffer_fault(buffer: Any, parameter: Tensor) -> str | None:
    if not isinstance(buffer, Tensor) or buffer.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        return f"is {shorten(buffer)}, not a tensor of floating-point numbers"
    if buffer.shape != parameter.shape:
        return f"has shape {tuple(buffer.shape)}, its parameter {tuple(parameter.shape)}"
    return None if bool(buffer.to(parameter.dtype).isfinite().all()) else "holds NaN or infinity"
