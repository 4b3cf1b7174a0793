"""Evaluation while a run trains: when it is due, and what it means for the best checkpoint and the learning rate.

The losses of the validation split are measured as the metrics are, in eval mode: normalisation by the running statistics,
nothing updated.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from detection.engine.callbacks import Evaluation
from detection.engine.distributed import on_all, on_main, reduce_max, share_buffers
from detection.engine.precision import autocast
from detection.engine.run import TrainBatch, TrainingRun, Validation, save_best, save_last
from detection.engine.saved_state import BestEvaluation
from detection.engine.state import seed_everything, unmoved_generators
from detection.engine.window import LOG_ONLY_PREFIX

T = TypeVar("T")


def evaluation_due(run: TrainingRun) -> bool:
    """Whether the run stands at a step whose evaluation is still to be done."""
    state, interval = run.state, run.config.eval_every
    due = state.step == run.config.steps or (interval > 0 and state.step % interval == 0)
    return run.validation is not None and state.step > state.evaluated and due


def evaluate_run(run: TrainingRun) -> None:
    """Evaluate, keep the best weights, and save. If a signal breaks it off, the resumed run does it again."""
    assert run.validation is not None
    state, validation = run.state, run.validation
    started = time.perf_counter()
    measured = _evaluate(run, validation)
    if measured is None:
        run.stop.agreed = reduce_max(run.world, [run.stop.received or 0])[0]
        return
    state.evaluated, state.metrics = state.step, dict(measured.metrics)
    state.seconds += time.perf_counter() - started
    is_best = validation.best_metric is not None and _note_best(run, validation.best_metric, validation.higher_is_better)
    evaluation = replace(measured, is_best=is_best)
    run.tell(lambda callbacks: callbacks.call(lambda each: each.on_evaluation(evaluation)))
    if is_best:
        save_best(run)
    save_last(run)


def _evaluate(run: TrainingRun, validation: Validation) -> Evaluation | None:
    """The metrics and losses, or None where a signal broke the evaluation off, on whichever process."""
    world = run.world
    share_buffers(world, run.evaluated_model)  # all share the work: with rank 0's norms, as if it did all
    shares = on_all(world, lambda: _in_evaluation(run, lambda model: (validation.share(model, world),)))
    done = [share[0] for share in shares if share is not None]
    if len(done) < world.size:
        return None

    def measure(model: nn.Module) -> Evaluation:
        metrics = {name: float(value) for name, value in validation.measure(done).items()}
        losses = {} if validation.batches is None else _validation_losses(run, validation.batches())
        return Evaluation(run.state.step, metrics, validation.best_metric, losses=losses)

    return on_main(world, lambda: _in_evaluation(run, measure))


def _in_evaluation(run: TrainingRun, work: Callable[[nn.Module], T]) -> T | None:
    """What `work` returns for the model in eval mode, or None where a signal broke it off."""
    model = run.evaluated_model
    model.eval()
    try:
        with run.stop.raising_at_once(), torch.no_grad():
            return work(model)
    except KeyboardInterrupt:
        if run.stop.received is None:
            raise
        return None
    finally:
        model.train()


def _validation_losses(run: TrainingRun, batches: Iterable[TrainBatch]) -> dict[str, float]:
    """The mean of each loss over the images of the batches. The same random numbers at each call; the run's stay untouched."""
    totals: dict[str, float] = defaultdict(float)
    images, device = 0, run.world.device
    with unmoved_generators():
        for number, batch in enumerate(batches):
            seed_everything(run.config.seed, number, run.world.rank)
            with autocast(device, run.dtype):
                losses = run.evaluated_model(batch.to(device))
            images += len(batch)
            for name, loss in losses.items():
                if not name.startswith(LOG_ONLY_PREFIX):
                    totals[name] += float(loss) * len(batch)
    return {name: total / images for name, total in totals.items()}


def _note_best(run: TrainingRun, best_metric: str, higher_is_better: bool) -> bool:
    """Whether the weights are the best so far; where they are not, a "plateau" schedule may drop the rate."""
    state, config = run.state, run.config
    if improves(state.metrics, best_metric, higher_is_better, state.best):
        state.best = BestEvaluation(best_metric, state.metrics[best_metric], state.step)
        state.stale = state.since_best = 0
        return True
    state.stale += 1
    state.since_best += 1
    if config.schedule == "plateau" and state.stale >= config.plateau_patience:
        state.drops, state.stale = state.drops + 1, 0
    return False


def improves(metrics: dict[str, float], best_metric: str, higher_is_better: bool, best: BestEvaluation | None) -> bool:
    """Whether the metric beats the best so far; NaN never does."""
    if best_metric not in metrics:
        raise ValueError(f"best_metric '{best_metric}' is not among the evaluation's {sorted(metrics)}")
    sign = 1 if higher_is_better else -1
    return sign * metrics[best_metric] > (float("-inf") if best is None else sign * best.value)
