"""The training loop, shared by the classification and the detection stage.

A model is an `nn.Module` whose forward(batch) returns scalar losses, and beside them, under names that begin with
"train_", scalars that are only logged; a batch has `.to(device)`, `len()` and `.files`.
A step is one optimizer update over `accumulate` micro-batches in each process; micro-batches are numbered from 0.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detection.config import TrainConfig
from detection.engine.distributed import World, average, data_parallel, gather, maximum, on_main, process_group
from detection.engine.log import METRICS_FILE, Line, RunLog, peak_memory_mb, writing
from detection.engine.optim import (
    average_of,
    build_optimizer,
    describe_schedule,
    gradient_norm,
    learning_rate,
    scale_schedule,
    set_learning_rate,
)
from detection.engine.precision import autocast, resolve_precision
from detection.engine.run import Run, WarmedUp, save
from detection.engine.signals import StopSignals
from detection.engine.state import BEST, LAST, claim_output_dir, open_run, restore, seed_everything
from detection.engine.validation import Evaluate, evaluate_run, evaluation_due
from detection.engine.window import GRADIENT_NORM, MEASURE, Window
from detection.errors import TrainingError
from detection.files import remove_leftovers

logger = logging.getLogger(__name__)


class TrainBatch(Protocol):
    """What the loop needs to know of a batch."""

    files: list[str]

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Any:
        """The same batch on a device."""


Batches = Callable[[int], Iterable[Any]]
"""First micro-batch number -> this process's endless batches from there on: a pure function of the number."""


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


def train(
    model: nn.Module,
    batches: Batches,
    config: TrainConfig,
    output_dir: Path,
    *,
    metadata: dict[str, Any],
    evaluate: Evaluate | None = None,
    best_metric: str | None = None,
    warmed_up: WarmedUp | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train a model and keep its checkpoints and log in `output_dir`.

    `metadata` gives each checkpoint its kind, class_names, preprocessing and config (plain values). `evaluate` is called
    on rank 0 with the model in eval mode; `best.pt` is kept by its value `best_metric`, greater is better, or lower with a
    leading minus ("-error"). With `warmed_up` the rate stays at `warmup_factor` of its value until that says yes to the
    means of a log interval. With `ema_decay` the averaged weights are evaluated and kept in best.pt, and are the model's at
    the end. `config` is the nominal one; it is scaled to the total batch here.

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
            run = Run(model, optimizer, scaled, world, output_dir, metadata, evaluate, best_metric, log, stop)
            run.average, run.warmed_up = average_of(model, scaled.ema_decay), warmed_up
            run.state.warm = warmed_up is None
            _begin(run, checkpoint)
            _loop(run, batches)
            return _result(run)


def _begin(run: Run, checkpoint: dict[str, Any] | None) -> None:
    """Restore or start the run, and open its files."""
    if checkpoint is not None:
        run.state, run.window = restore(checkpoint, run.output_dir / LAST, run.model, run.average, run.optimizer, run.world)
        run.metadata = {**run.metadata, "preprocessing": checkpoint["preprocessing"]}
        logger.info("%s", _describe_restored(run))
    if run.world.is_main:
        for name in (LAST, BEST, METRICS_FILE):
            remove_leftovers(run.output_dir / name)
        with writing(run.output_dir / "config.yaml"):
            (run.output_dir / "config.yaml").write_text(yaml.safe_dump(run.metadata["config"], sort_keys=False))
    if checkpoint is None:
        save(run)  # from now on there is something to resume, whenever the run is killed
    state = run.state
    run.log.start(state.step, lambda line: line["step"] <= (state.evaluated if line["kind"] == "evaluation" else state.step))


def _describe_restored(run: Run) -> str:
    state = run.state
    best = f"best {run.best_metric} {state.best['value']:.4f} of step {state.best['step']}" if state.best else "no best yet"
    return (
        f"resuming {run.output_dir / LAST} at step {state.step} of {run.config.steps}: restored weights, optimizer, "
        f"schedule, random numbers, the place in the data (batch {state.step * run.config.accumulate}) and {best}"
    )


def _loop(run: Run, batches: Batches) -> None:
    """Step until the last step or a signal."""
    state, config, optimizer = run.state, run.config, run.optimizer
    dtype = resolve_precision(config.precision, run.world.device)
    logger.info("%s, %s, %d process(es)", run.world.device, "fp32" if dtype is None else "bf16 autocast", run.world.size)
    parallel = data_parallel(run.model, run.world)
    run.model.train()
    if evaluation_due(run):  # the run was killed while it evaluated
        evaluate_run(run)
    stream = iter(batches(state.step * config.accumulate)) if state.step < config.steps else iter(())
    while state.step < config.steps and run.stop.agreed is None:
        started = time.perf_counter()
        set_learning_rate(optimizer, learning_rate(state.step, config, drops=state.drops, warm=state.warm))
        optimizer.zero_grad()
        _backward(run, parallel, stream, dtype)
        run.window.add_gradient_norm(state.step + 1, gradient_norm(run.model, config.clip_norm))
        _look(run)  # raises on a value that is not finite, before it reaches the weights
        optimizer.step()
        if run.average is not None:
            run.average.update_parameters(run.model)
        state.step += 1
        _count_time(run, time.perf_counter() - started)
        _after_step(run)


def _backward(run: Run, parallel: nn.Module, stream: Iterator[Any], dtype: torch.dtype | None) -> None:
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
            (total_loss(losses) / config.accumulate).backward()
        run.window.add_losses(state.step + 1, losses, batch.files)


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of a model's losses, a scalar in float32; what is only logged is left out."""
    return torch.stack([loss.float() for name, loss in losses.items() if not name.startswith(MEASURE)]).sum()


def _next_batch(run: Run, stream: Iterator[Any]) -> Any:
    started = time.perf_counter()
    batch = next(stream, None)
    if batch is None:
        raise TrainingError(f"the training data ended at step {run.state.step}; is the training split empty?")
    run.window.data_seconds += time.perf_counter() - started
    run.window.images += len(batch) * run.world.size
    return batch


def _unsynchronised(parallel: nn.Module) -> AbstractContextManager[None]:
    return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()


def _look(run: Run) -> None:
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


def _keeps(run: Run, step: int) -> bool:
    """Whether something is saved or evaluated after this step."""
    config = run.config
    evaluates = config.eval_every > 0 and step % config.eval_every == 0
    return step == config.steps or step % config.checkpoint_every == 0 or evaluates


def _count_time(run: Run, seconds: float) -> None:
    run.window.steps += 1
    run.window.seconds += seconds
    run.state.seconds += seconds


def _after_step(run: Run) -> None:
    """Log, save and evaluate as the step demands."""
    step = run.state.step
    run.log.advance(step)
    if step % run.config.log_every == 0 or step == run.config.steps:
        line = _log_line(run)
        run.log.interval(line)
        run.window = Window()
        if run.warmed_up is not None and not run.state.warm:
            run.state.warm = run.warmed_up(line)
    if run.stop.agreed is not None or _keeps(run, step):
        save(run)
    if run.stop.agreed is None and evaluation_due(run):
        evaluate_run(run)


def _log_line(run: Run) -> Line:
    """The record of a log interval, averaged over the processes."""
    window = run.window
    means = average(run.world, window.means())
    norm = means.pop(GRADIENT_NORM)
    losses = {name: mean for name, mean in means.items() if not name.startswith(MEASURE)}
    steps = max(window.steps, 1)
    return {
        "step": run.state.step,
        "loss": sum(losses.values()),
        "losses": losses,
        **{name: mean for name, mean in means.items() if name.startswith(MEASURE)},
        "learning_rate": run.optimizer.param_groups[0]["lr"],
        GRADIENT_NORM: norm,
        "step_time": window.seconds / steps,
        "data_time": window.data_seconds / steps,
        "images_per_second": window.images / max(window.seconds, 1e-9),
        "memory_mb": peak_memory_mb(run.world.device),
    }


def _result(run: Run) -> TrainResult:
    state, stopped = run.state, run.stop.agreed
    if stopped is not None:
        name = signal.Signals(stopped).name
        logger.info("%s at step %d of %d; saved %s", name, state.step, run.config.steps, run.output_dir / LAST)
    elif run.average is not None:
        run.model.load_state_dict(run.average.module.state_dict())
    best = state.best["value"] if state.best else None
    return TrainResult(state.step, state.metrics, best, state.seconds, stopped)
