"""The training loop, shared by the classification and the detection stage.

A model is an `nn.Module` whose forward(batch) returns scalar losses by name. Scalars whose names begin with "train_" are
only logged. A batch has `.to(device)`, `len()` and `.files`.
A step is one optimizer update over `accumulate` micro-batches in each process; micro-batches are numbered from 0.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detection.config import TrainConfig
from detection.config.yaml_text import dump_yaml
from detection.engine.advice import advise_resumed, advise_schedule
from detection.engine.distributed import World, all_gather, data_parallel, on_main, reduce_max, reduce_mean
from detection.engine.folder import hold_folder
from detection.engine.group import process_group
from detection.engine.log import METRICS_FILE, LogLine, OnLog, RunLog, peak_memory_mb, writing
from detection.engine.optim import (
    build_ema,
    build_optimizer,
    describe_schedule,
    gradient_norm,
    learning_rate,
    scale_schedule,
    set_learning_rate,
)
from detection.engine.precision import autocast, resolve_precision
from detection.engine.run import Evaluate, TrainingRun, WarmUpIsOver, save_last
from detection.engine.saved_state import TrainState
from detection.engine.signals import StopSignals
from detection.engine.state import BEST, LAST, read_last_checkpoint, require_no_other_run, restore, seed_everything
from detection.engine.validation import evaluate_run, evaluation_due
from detection.engine.window import GRADIENT_NORM, LOG_ONLY_PREFIX, LogWindow
from detection.errors import TrainingError
from detection.files import remove_leftovers, write_whole
from detection.weights.checkpoint import Checkpoint, CheckpointMetadata

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"


class TrainBatch(Protocol):
    """What the loop needs to know of a batch."""

    @property
    def files(self) -> list[str]:
        """The images' files, to name them where the loss is not finite."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Any:
        """The same batch on a device."""


class WaitBrokenOffError(Exception):
    """A signal came, and then no data."""


MakeBatches = Callable[[int], Iterable[TrainBatch]]
"""Number of a micro-batch -> this process's endless stream of batches from that one on; equal numbers give equal streams."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `best` is the best value of `best_metric`; `seconds` counts the parts of a resumed run too."""

    steps: int
    metrics: dict[str, float]
    best: float | None
    seconds: float
    signal: int | None = None

    @property
    def interrupted(self) -> bool:
        """Whether a signal or the end of its output's reader ended it before its last step."""
        return self.signal is not None


def train(
    model: nn.Module,
    make_batches: MakeBatches,
    config: TrainConfig,
    output_dir: Path,
    *,
    metadata: CheckpointMetadata,
    evaluate: Evaluate | None = None,
    best_metric: str | None = None,
    higher_is_better: bool = True,
    warm_up_is_over: WarmUpIsOver | None = None,
    resume: bool = False,
    on_log: OnLog | None = None,
) -> TrainResult:
    """Train a model and keep its checkpoints and log in `output_dir`.

    `config` is the nominal one; it is scaled to the total batch here. `metadata` is what each checkpoint says of the model.
    `evaluate` is called on rank 0 with the model in eval mode and returns metrics; best.pt holds the weights with the best
    `best_metric` of them, the highest value or the lowest, as `higher_is_better` says. With `warm_up_is_over` the rate stays
    at `warmup_factor` of its value until that returns True for the line of a log interval. With `ema_decay` the averaged
    weights are evaluated and kept in best.pt, and are the model's at the end. `on_log` gets each line of metrics.jsonl, on
    rank 0.

    The folder is held until the end (`detection.engine.folder`). SIGINT, SIGTERM and SIGHUP end the run after its current
    step, saved; so does a standard output whose reader has gone, as if by SIGPIPE.

    Raises TrainingError for a loss or weights that are not finite, an output folder that is in use, holds another run or is
    deleted meanwhile, a run that cannot be resumed, or another process that is lost; CheckpointError for a damaged or
    foreign last.pt.
    """
    world = World.from_environment()
    scaled = scale_schedule(config, world.size)
    with process_group(world, config), hold_folder(world, output_dir) as folder:
        checkpoint = on_main(world, lambda: _find_checkpoint(output_dir, metadata, scaled, world, resume))
        model.to(world.device)
        optimizer = build_optimizer(model, scaled)
        with (
            StopSignals() as stop,
            RunLog(
                output_dir,
                scaled.steps,
                enabled=world.is_main,
                on_log=on_log,
                before_write=folder.require_intact,
                on_closed_output=stop.note_closed_output,
            ) as log,
        ):
            logger.info("%s", describe_schedule(config, scaled))
            for sentence in advise_schedule(scaled, evaluated=evaluate is not None):
                logger.warning("%s", sentence)
            run = TrainingRun(
                model=model,
                ema=build_ema(model, scaled.ema_decay),
                optimizer=optimizer,
                config=scaled,
                world=world,
                folder=folder,
                metadata=metadata,
                evaluate=evaluate,
                best_metric=best_metric,
                higher_is_better=higher_is_better,
                log=log,
                stop=stop,
                warm_up_is_over=warm_up_is_over,
                state=TrainState(warm=warm_up_is_over is None),
            )
            _begin(run, checkpoint)
            _loop(run, make_batches)
            return _result(run)


def _find_checkpoint(
    output_dir: Path, metadata: CheckpointMetadata, config: TrainConfig, world: World, resume: bool
) -> Checkpoint | None:
    """The checkpoint to go on from; None for a new run, whose folder must not hold another."""
    if resume:
        return read_last_checkpoint(output_dir, metadata, config, world)
    require_no_other_run(output_dir)
    return None


def _begin(run: TrainingRun, checkpoint: Checkpoint | None) -> None:
    """Restore or start the run, and open its files."""
    if checkpoint is not None:
        run.state, run.window = restore(checkpoint, run.output_dir / LAST, run.model, run.ema, run.optimizer, run.world)
        run.metadata = replace(run.metadata, preprocessing=checkpoint.metadata.preprocessing)
        logger.info("%s", _describe_restored(run))
        for sentence in advise_resumed(checkpoint.training["scheduler"]["config"], run.config):
            logger.warning("%s", sentence)
    if run.world.is_main:
        for name in (LAST, BEST, METRICS_FILE, CONFIG_FILE):
            remove_leftovers(run.output_dir / name)
        with writing(run.output_dir / CONFIG_FILE):
            write_whole(run.output_dir / CONFIG_FILE, dump_yaml(run.metadata.config))
    if checkpoint is None:
        save_last(run)  # from now on there is something to resume, whenever the run is killed
    state = run.state
    run.log.start(state.step, lambda line: line["step"] <= (state.evaluated if line["kind"] == "evaluation" else state.step))


def _describe_restored(run: TrainingRun) -> str:
    state = run.state
    best = f"best {state.best.metric} {state.best.value:.4f} of step {state.best.step}" if state.best else "no best yet"
    return (
        f"resuming {run.output_dir / LAST} at step {state.step} of {run.config.steps}: restored weights, optimizer, "
        f"schedule, random numbers, the place in the data (batch {state.step * run.config.accumulate}) and {best}"
    )


def _loop(run: TrainingRun, make_batches: MakeBatches) -> None:
    """Step until the last step or a signal."""
    state, config, optimizer = run.state, run.config, run.optimizer
    dtype = resolve_precision(config.precision, run.world.device)
    logger.info("%s, %s, %d process(es)", run.world.device, "fp32" if dtype is None else "bf16 autocast", run.world.size)
    parallel = data_parallel(run.model, run.world)
    run.model.train()
    if evaluation_due(run):  # the run was killed while it evaluated
        evaluate_run(run)
    stream = iter(make_batches(state.step * config.accumulate)) if state.step < config.steps else iter(())
    while state.step < config.steps and run.stop.agreed is None:
        started = time.perf_counter()
        set_learning_rate(optimizer, learning_rate(state.step, config, drops=state.drops, warm=state.warm))
        optimizer.zero_grad()
        try:
            _backward(run, parallel, stream, dtype)
        except WaitBrokenOffError:
            _stop_before_step(run)
            break
        run.window.add_gradient_norm(state.step + 1, gradient_norm(run.model, config.clip_norm))
        _check_losses_and_signals(run)  # raises on a value that is not finite, before it reaches the weights
        optimizer.step()
        if run.ema is not None:
            run.ema.update_parameters(run.model)
        state.step += 1
        _count_time(run, time.perf_counter() - started)
        _after_step(run)


def _backward(run: TrainingRun, parallel: nn.Module, stream: Iterator[TrainBatch], dtype: torch.dtype | None) -> None:
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
    """The sum of a model's losses, a scalar in float32, without the scalars that are only logged."""
    return torch.stack([loss.float() for name, loss in losses.items() if not name.startswith(LOG_ONLY_PREFIX)]).sum()


def _next_batch(run: TrainingRun, stream: Iterator[TrainBatch]) -> TrainBatch:
    started = time.perf_counter()
    try:
        with run.stop.waiting_for_data():
            batch = next(stream, None)
    except KeyboardInterrupt:
        if run.stop.received is None:
            raise
        raise WaitBrokenOffError from None
    if batch is None:
        raise TrainingError(f"the training data ended at step {run.state.step}; is the training split empty?")
    run.window.data_seconds += time.perf_counter() - started
    run.window.images += len(batch) * run.world.size
    return batch


def _stop_before_step(run: TrainingRun) -> None:
    """Save what the last whole step left, after a signal and data that did not come."""
    assert run.stop.received is not None
    step, name = run.state.step, signal.Signals(run.stop.received).name
    if run.world.size > 1:
        raise TrainingError(f"{name} at step {step}, while no data came; --resume goes on from the last save of {LAST}")
    run.window.forget(step + 1)
    problem = run.window.check()
    if problem is not None:
        raise TrainingError(problem.message)
    run.stop.agreed = run.stop.received
    save_last(run)


def _unsynchronised(parallel: nn.Module) -> AbstractContextManager[None]:
    return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext()


def _check_losses_and_signals(run: TrainingRun) -> None:
    """Raise TrainingError for a value that is not finite; let all processes agree whether to stop after this step.

    On a GPU this waits for the device, so it is done only at steps that log or save; on a CPU it is done at each.
    """
    step, config = run.state.step + 1, run.config
    due = run.world.device.type == "cpu" or step % config.log_every == 0 or _saves_after(run, step)
    if not due and not (run.world.size == 1 and run.stop.received):
        return
    problem = run.window.check()
    bad, received = reduce_max(run.world, [problem is not None, run.stop.received or 0])
    if bad:
        found = [item for item in all_gather(run.world, problem) if item is not None]
        raise TrainingError(max(found, key=lambda item: item.is_cause).message)
    run.stop.agreed = received or None


def _saves_after(run: TrainingRun, step: int) -> bool:
    """Whether a checkpoint is saved after this step: when one is due, before each evaluation, and at the end."""
    config = run.config
    evaluates = config.eval_every > 0 and step % config.eval_every == 0
    return step == config.steps or step % config.checkpoint_every == 0 or evaluates


def _count_time(run: TrainingRun, seconds: float) -> None:
    run.window.steps += 1
    run.window.seconds += seconds
    run.state.seconds += seconds


def _after_step(run: TrainingRun) -> None:
    """Log, save and evaluate where that is due."""
    step = run.state.step
    run.log.advance(step)
    if step % run.config.log_every == 0 or step == run.config.steps:
        line = _log_line(run)
        run.log.record_interval(line)
        run.window = LogWindow()
        if run.warm_up_is_over is not None and not run.state.warm:
            run.state.warm = run.warm_up_is_over(line)
    if run.stop.agreed is not None or _saves_after(run, step):
        save_last(run)
    if run.stop.agreed is None and evaluation_due(run):
        evaluate_run(run)


def _log_line(run: TrainingRun) -> LogLine:
    """The record of a log interval, averaged over the processes."""
    window = run.window
    means = reduce_mean(run.world, window.means())
    norm = means.pop(GRADIENT_NORM)
    losses = {name: mean for name, mean in means.items() if not name.startswith(LOG_ONLY_PREFIX)}
    steps = max(window.steps, 1)
    return {
        "step": run.state.step,
        "loss": sum(losses.values()),
        "losses": losses,
        **{name: mean for name, mean in means.items() if name.startswith(LOG_ONLY_PREFIX)},
        "learning_rate": run.optimizer.param_groups[0]["lr"],
        GRADIENT_NORM: norm,
        "step_time": window.seconds / steps,
        "data_time": window.data_seconds / steps,
        "images_per_second": window.images / max(window.seconds, 1e-9),
        "memory_mb": peak_memory_mb(run.world.device),
    }


def _result(run: TrainingRun) -> TrainResult:
    state, stopped = run.state, run.stop.agreed
    if stopped is not None:
        name = signal.Signals(stopped).name
        logger.info("%s at step %d of %d; saved %s", name, state.step, run.config.steps, run.output_dir / LAST)
    elif run.ema is not None:
        run.model.load_state_dict(run.ema.module.state_dict())
    best = None if state.best is None else state.best.value
    return TrainResult(state.step, state.metrics, best, state.seconds, stopped)
