"""The loop: batch, losses, their sum, backward, step; and after a step what is due then.

A step is one optimizer update over `accumulate` micro-batches in each process; micro-batches are numbered from 0.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detection.engine.callbacks import LogLine
from detection.engine.distributed import all_gather, data_parallel, reduce_max, reduce_mean
from detection.engine.log import peak_memory_mb
from detection.engine.memory import training_memory
from detection.engine.optim import current_rate, gradient_norm, learning_rate, set_learning_rate
from detection.engine.precision import autocast, describe_precision, overflowed, require_scale
from detection.engine.run import TrainBatch, TrainingRun, save_last
from detection.engine.state import LAST, seed_everything
from detection.engine.validation import evaluate_run, evaluation_due
from detection.engine.window import GRADIENT_NORM, LOG_ONLY_PREFIX, LogWindow
from detection.errors import TrainingError

logger = logging.getLogger(__name__)

MakeBatches = Callable[[int], Iterable[TrainBatch]]
"""Number of a micro-batch -> this process's endless stream of batches from that one on; equal numbers give equal streams."""


class WaitBrokenOffError(Exception):
    """A signal came, and then no data."""


def run_steps(run: TrainingRun, make_batches: MakeBatches) -> None:
    """Step until the last step, or until a signal, a callback or the patience stops the run."""
    state, config, optimizer = run.state, run.config, run.optimizer
    logger.info("%s, %s, %d process(es)", run.world.device, describe_precision(run.dtype), run.world.size)
    parallel = data_parallel(run.model, run.world)
    run.model.train()
    if evaluation_due(run):  # the run was killed while it evaluated
        evaluate_run(run)
    stream = iter(()) if run.is_over else iter(make_batches(state.step * config.accumulate))
    while not run.is_over:
        started = time.perf_counter()
        set_learning_rate(optimizer, learning_rate(state.step, config, drops=state.drops, warm=state.warm))
        optimizer.zero_grad()
        try:
            _backward(run, parallel, stream)
        except WaitBrokenOffError:
            _stop_before_step(run)
            break
        _update_weights(run)
        state.step += 1
        _count_time(run, time.perf_counter() - started)
        _after_step(run)


def _backward(run: TrainingRun, parallel: nn.Module, stream: Iterator[TrainBatch]) -> None:
    """Add up the gradients of the step's micro-batches."""
    state, config, device = run.state, run.config, run.world.device
    for index in range(config.accumulate):
        number = state.step * config.accumulate + index
        batch = _next_batch(run, stream)
        seed_everything(config.seed, number, run.world.rank)
        # Gradients travel between the processes once a step, with the last micro-batch.
        synchronised = _unsynchronised(parallel) if index < config.accumulate - 1 else nullcontext()
        with training_memory(run, batch), synchronised:
            with autocast(device, run.dtype):
                losses: dict[str, Tensor] = parallel(batch.to(device))
            run.scaler.scale(total_loss(losses) / config.accumulate).backward()
        run.window.add_losses(state.step + 1, losses, batch.files)


def _update_weights(run: TrainingRun) -> None:
    """Step, unless the gradient overflowed in fp16: that is counted, and the next losses are multiplied by less."""
    step = run.state.step + 1
    run.scaler.unscale_(run.optimizer)
    norm = gradient_norm(run.model, run.config.clip_norm)
    overflow = overflowed(run.scaler, norm)
    if not overflow:
        run.window.add_gradient_norm(step, norm)
    _check_losses_and_signals(run)  # raises on a value that is not finite, before it reaches the weights
    with training_memory(run):  # the first step makes the optimizer's state
        run.scaler.step(run.optimizer)  # does nothing after an overflow
    run.scaler.update()
    require_scale(run.scaler, step, run.config)
    run.state.skipped_steps += overflow
    if run.ema is not None and not overflow:
        run.ema.update_parameters(run.model)


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
    problem = run.window.check(run.config.key)
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
    problem = run.window.check(run.config.key)
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
        _log_interval(run)
    if run.is_over or _saves_after(run, step):
        save_last(run)
    if run.stop.agreed is None and evaluation_due(run):
        evaluate_run(run)


def _log_interval(run: TrainingRun) -> None:
    """End the log interval, and with it a warm-up that waits for the training error."""
    line = _log_line(run)
    run.tell(lambda callbacks: callbacks.call(lambda each: each.on_log(line)))
    run.window = LogWindow()
    if run.warm_up_is_over is not None and not run.state.warm:
        run.state.warm = run.warm_up_is_over(line)


def _log_line(run: TrainingRun) -> LogLine:
    """The record of a log interval, averaged over the processes."""
    window = run.window
    means = reduce_mean(run.world, window.means())
    norm = means.pop(GRADIENT_NORM, math.nan)  # in fp16 all steps of an interval may have overflowed
    losses = {name: mean for name, mean in means.items() if not name.startswith(LOG_ONLY_PREFIX)}
    steps = max(window.steps, 1)
    return {
        "kind": "train",
        "step": run.state.step,
        "loss": sum(losses.values()),
        "losses": losses,
        **{name: mean for name, mean in means.items() if name.startswith(LOG_ONLY_PREFIX)},
        "learning_rate": current_rate(run.optimizer),
        GRADIENT_NORM: norm,
        **_scaler_line(run),
        "step_time": window.seconds / steps,
        "data_time": window.data_seconds / steps,
        "images_per_second": window.images / max(window.seconds, 1e-9),
        "memory_mb": peak_memory_mb(run.world.device),
    }


def _scaler_line(run: TrainingRun) -> LogLine:
    """What the record says of a run in fp16."""
    if not run.scaler.is_enabled():
        return {}
    return {"loss_scale": run.scaler.get_scale(), "skipped_steps": run.state.skipped_steps}
