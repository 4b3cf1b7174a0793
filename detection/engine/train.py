"""The training loop, shared by the classification and the detection stage.

A model is an `nn.Module` whose forward(batch) returns scalar losses; a batch has `.to(device)`, `len()` and `.files`.
A step is one optimizer update over `accumulate` micro-batches in each process; micro-batches are numbered from 0.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from backbones.weights import save_checkpoint
from detection.config import TrainConfig
from detection.engine.checkpoint import model_part
from detection.engine.distributed import World, average, data_parallel, gather, maximum, on_main, process_group
from detection.engine.log import Line, RunLog, peak_memory_mb, writing
from detection.engine.optim import (
    build_optimizer,
    describe_schedule,
    gradient_norm,
    learning_rate,
    scale_schedule,
    set_learning_rate,
)
from detection.engine.precision import autocast, resolve_precision
from detection.engine.signals import StopSignals
from detection.engine.state import BEST, LAST, TrainState, claim_output_dir, open_run, restore, seed_everything, snapshot
from detection.engine.window import GRADIENT_NORM, Window
from detection.errors import TrainingError

logger = logging.getLogger(__name__)


class TrainBatch(Protocol):
    """What the loop needs to know of a batch."""

    files: list[str]

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Any:
        """The same batch on a device."""


Batches = Callable[[int], Iterable[Any]]
"""First micro-batch number -> this process's endless batches from there on: a pure function of the number."""

Evaluate = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `best` is the best value of the metric so far; `seconds` counts the parts of a resumed run too."""

    steps: int
    metrics: dict[str, float]
    best: float | None
    seconds: float
    signal: int | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or SIGTERM ended it before its last step."""
        return self.signal is not None


@dataclass
class _Run:
    """What the parts of the loop share."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    config: TrainConfig  # scaled
    world: World
    output_dir: Path
    metadata: dict[str, Any]
    evaluate: Evaluate | None
    best_metric: str | None
    log: RunLog
    stop: StopSignals
    state: TrainState = field(default_factory=TrainState)
    window: Window = field(default_factory=Window)


def train(
    model: nn.Module,
    batches: Batches,
    config: TrainConfig,
    output_dir: Path,
    *,
    metadata: dict[str, Any],
    evaluate: Evaluate | None = None,
    best_metric: str | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train a model and keep its checkpoints and log in `output_dir`.

    `metadata` gives each checkpoint its kind, class_names, preprocessing and config (plain values). `evaluate` is called
    on rank 0 with the model in eval mode; `best.pt` is kept by its value `best_metric`, greater is better, or lower with a
    leading minus ("-error"). `config` is the nominal one; it is scaled to the total batch here.

    Raises TrainingError for a loss that is not finite, an output folder that holds another run, or a run that cannot be
    resumed; CheckpointError for a damaged or foreign last.pt.
    """
    world = World.from_environment()
    scaled = scale_schedule(config, world.size)
    with process_group(world):
        checkpoint = on_main(
            world, lambda: open_run(output_dir, metadata, scaled, world) if resume else claim_output_dir(output_dir)
        )
        model.to(world.device)
        optimizer = build_optimizer(model, scaled)
        with RunLog(output_dir, scaled.steps, enabled=world.is_main) as log, StopSignals() as stop:
            logger.info("%s", describe_schedule(config, scaled))
            run = _Run(model, optimizer, scaled, world, output_dir, metadata, evaluate, best_metric, log, stop)
            _begin(run, checkpoint)
            _loop(run, batches)
            return _result(run)


def _begin(run: _Run, checkpoint: dict[str, Any] | None) -> None:
    """Restore or start the run, and open its files."""
    if checkpoint is not None:
        run.state, run.window = restore(checkpoint, run.output_dir / LAST, run.model, run.optimizer, run.world)
        run.metadata = {**run.metadata, "preprocessing": checkpoint["preprocessing"]}
        logger.info("%s", _describe_restored(run))
    if run.world.is_main:
        with writing(run.output_dir / "config.yaml"):
            (run.output_dir / "config.yaml").write_text(yaml.safe_dump(run.metadata["config"], sort_keys=False))
    if checkpoint is None:
        _save(run)  # from now on there is something to resume, whenever the run is killed
    state = run.state
    run.log.start(state.step, lambda line: line["step"] <= (state.evaluated if line["kind"] == "evaluation" else state.step))


def _describe_restored(run: _Run) -> str:
    state = run.state
    best = f"best {run.best_metric} {state.best['value']:.4f} of step {state.best['step']}" if state.best else "no best yet"
    return (
        f"resuming {run.output_dir / LAST} at step {state.step} of {run.config.steps}: restored weights, optimizer, "
        f"schedule, random numbers, the place in the data (batch {state.step * run.config.accumulate}) and {best}"
    )


def _loop(run: _Run, batches: Batches) -> None:
    """Step until the last step or a signal."""
    state, config, optimizer = run.state, run.config, run.optimizer
    dtype = resolve_precision(config.precision, run.world.device)
    logger.info("%s, %s, %d process(es)", run.world.device, "fp32" if dtype is None else "bf16 autocast", run.world.size)
    parallel = data_parallel(run.model, run.world)
    run.model.train()
    if _evaluation_due(run):  # the run was killed while it evaluated
        _evaluate(run)
    stream = iter(batches(state.step * config.accumulate)) if state.step < config.steps else iter(())
    while state.step < config.steps and run.stop.agreed is None:
        started = time.perf_counter()
        set_learning_rate(optimizer, learning_rate(state.step, config))
        optimizer.zero_grad()
        _backward(run, parallel, stream, dtype)
        run.window.add_gradient_norm(state.step + 1, gradient_norm(run.model, config.clip_norm))
        _look(run)  # raises on a value that is not finite, before it reaches the weights
        optimizer.step()
        state.step += 1
        _count_time(run, time.perf_counter() - started)
        _after_step(run)


def _backward(run: _Run, parallel: nn.Module, stream: Iterator[Any], dtype: torch.dtype | None) -> None:
    """Add up the gradients of the step's micro-batches."""
    state, config, device = run.state, run.config, run.world.device
    for index in range(config.accumulate):
        number = state.step * config.accumulate + index
        batch = _next_batch(run, stream)
        seed_everything(config.seed, number, run.world.rank)
        # Gradients travel between the processes once a step, with the last micro-batch.
        with _unsynchronised(parallel) if index < config.accumulate - 1 else nullcontext():
            with autocast(device, dtype):
                losses: dict[str, Tensor] = parallel(batch.to(device))
            (torch.stack([loss.float() for loss in losses.values()]).sum() / config.accumulate).backward()
        run.window.add_losses(state.step + 1, losses, batch.files)


def _next_batch(run: _Run, stream: Iterator[Any]) -> Any:
    started = time.perf_counter()
    batch = next(stream, None)
    if batch is None:
        raise TrainingError(f"the training data ended at step {run.state.step}; is the training split empty?")
    run.window.data_seconds += time.perf_counter() - started
    run.window.images += len(batch) * run.world.size
    return batch


def _unsynchronised(parallel: nn.Module) -> AbstractContextManager[None]:
    return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()


def _look(run: _Run) -> None:
    """Check the losses and agree on a stop, where that costs little: each step on a CPU, on a GPU at the step's files."""
    step, config = run.state.step + 1, run.config
    due = run.world.device.type == "cpu" or step % config.log_every == 0 or _keeps(run, step)
    if not due and not (run.world.size == 1 and run.stop.received):
        return
    problem = run.window.check()
    bad, received = maximum(run.world, [problem is not None, run.stop.received or 0])
    if bad:
        found = [item for item in gather(run.world, problem) if item is not None]
        raise TrainingError(max(found, key=lambda item: item.is_cause).message)
    run.stop.agreed = received or None


def _keeps(run: _Run, step: int) -> bool:
    """Whether something is saved or evaluated after this step."""
    config = run.config
    evaluates = config.eval_every > 0 and step % config.eval_every == 0
    return step == config.steps or step % config.checkpoint_every == 0 or evaluates


def _count_time(run: _Run, seconds: float) -> None:
    run.window.steps += 1
    run.window.seconds += seconds
    run.state.seconds += seconds


def _after_step(run: _Run) -> None:
    """Log, save and evaluate as the step demands."""
    step = run.state.step
    run.log.advance(step)
    if step % run.config.log_every == 0 or step == run.config.steps:
        run.log.interval(_log_line(run))
        run.window = Window()
    if run.stop.agreed is not None or _keeps(run, step):
        _save(run)
    if run.stop.agreed is None and _evaluation_due(run):
        _evaluate(run)


def _log_line(run: _Run) -> Line:
    """The record of a log interval, averaged over the processes."""
    window = run.window
    losses = average(run.world, window.means())
    norm = losses.pop(GRADIENT_NORM)
    steps = max(window.steps, 1)
    return {
        "step": run.state.step,
        "loss": sum(losses.values()),
        "losses": losses,
        "learning_rate": learning_rate(run.state.step - 1, run.config),
        GRADIENT_NORM: norm,
        "step_time": window.seconds / steps,
        "data_time": window.data_seconds / steps,
        "images_per_second": window.images / max(window.seconds, 1e-9),
        "memory_mb": peak_memory_mb(run.world.device),
    }


def _save(run: _Run) -> None:
    """Replace last.pt in one instant; the old one stays whole if this fails. Called by all processes."""
    checkpoint = snapshot(run.model, run.optimizer, run.state, run.window, run.config, run.world, run.metadata)
    on_main(run.world, lambda: save_checkpoint(checkpoint, run.output_dir / LAST))


def _evaluation_due(run: _Run) -> bool:
    state, every = run.state, run.config.eval_every
    due = state.step == run.config.steps or (every > 0 and state.step % every == 0)
    return run.evaluate is not None and state.step > state.evaluated and due


def _evaluate(run: _Run) -> None:
    """Evaluate on rank 0, keep the best, and save that it was done. A signal breaks it off; a resumed run does it again."""
    state = run.state
    started = time.perf_counter()
    metrics = on_main(run.world, lambda: _measure(run))
    if metrics is None:
        run.stop.agreed = maximum(run.world, [run.stop.received or 0])[0]
        return
    state.evaluated, state.metrics = state.step, metrics
    state.seconds += time.perf_counter() - started
    if run.best_metric is not None and _improves(metrics, run.best_metric, state.best):
        name = run.best_metric.removeprefix("-")
        state.best = {"metric": name, "value": metrics[name], "step": state.step}
        on_main(run.world, lambda: _save_best(run))
    run.log.evaluation(state.step, metrics)
    _save(run)


def _measure(run: _Run) -> dict[str, float] | None:
    """The metrics, or None where a signal broke the evaluation off."""
    assert run.evaluate is not None
    run.model.eval()
    try:
        with run.stop.at_once(), torch.no_grad():
            return {name: float(value) for name, value in run.evaluate(run.model).items()}
    except KeyboardInterrupt:
        if run.stop.received is None:
            raise
        return None
    finally:
        run.model.train()


def _improves(metrics: dict[str, float], best_metric: str, best: dict[str, Any] | None) -> bool:
    """Whether the metric beats the best so far; NaN never does."""
    name = best_metric.removeprefix("-")
    if name not in metrics:
        raise ValueError(f"best_metric '{best_metric}' is not among the evaluation's {sorted(metrics)}")
    sign = -1 if best_metric.startswith("-") else 1
    return sign * metrics[name] > (sign * best["value"] if best else float("-inf"))


def _save_best(run: _Run) -> None:
    checkpoint = {**model_part(run.model, run.metadata), "step": run.state.step, "best": run.state.best}
    save_checkpoint(checkpoint, run.output_dir / BEST)


def _result(run: _Run) -> TrainResult:
    state, stopped = run.state, run.stop.agreed
    if stopped is not None:
        name = signal.Signals(stopped).name
        logger.info("%s at step %d of %d; saved %s", name, state.step, run.config.steps, run.output_dir / LAST)
    best = state.best["value"] if state.best else None
    return TrainResult(state.step, state.metrics, best, state.seconds, stopped)
