"""Evaluation while a run trains: when it is due, and what it means for the best checkpoint and the learning rate."""

from __future__ import annotations

import time

import torch

from detection.engine.distributed import on_main, reduce_max
from detection.engine.run import TrainingRun, save_best, save_last
from detection.engine.saved_state import BestEvaluation


def evaluation_due(run: TrainingRun) -> bool:
    """Whether the run stands at a step whose evaluation is still to be done."""
    state, interval = run.state, run.config.eval_every
    due = state.step == run.config.steps or (interval > 0 and state.step % interval == 0)
    return run.evaluate is not None and state.step > state.evaluated and due


def evaluate_run(run: TrainingRun) -> None:
    """Evaluate on rank 0, keep the best weights, and save. If a signal breaks it off, the resumed run does it again."""
    state = run.state
    started = time.perf_counter()
    metrics = on_main(run.world, lambda: _evaluate(run))
    if metrics is None:
        run.stop.agreed = reduce_max(run.world, [run.stop.received or 0])[0]
        return
    state.evaluated, state.metrics = state.step, metrics
    state.seconds += time.perf_counter() - started
    if run.best_metric is not None:
        _update_best(run, run.best_metric)
    run.log.record_evaluation(state.step, metrics)
    save_last(run)


def _evaluate(run: TrainingRun) -> dict[str, float] | None:
    """The metrics, or None where a signal broke the evaluation off."""
    assert run.evaluate is not None
    model = run.evaluated_model
    model.eval()
    try:
        with run.stop.raising_at_once(), torch.no_grad():
            return {name: float(value) for name, value in run.evaluate(model).items()}
    except KeyboardInterrupt:
        if run.stop.received is None:
            raise
        return None
    finally:
        model.train()


def _update_best(run: TrainingRun, best_metric: str) -> None:
    """Keep the weights if they are the best so far; drop the rate of a "plateau" schedule where nothing gets better."""
    state, config = run.state, run.config
    if improves(state.metrics, best_metric, run.higher_is_better, state.best):
        state.best, state.stale = BestEvaluation(best_metric, state.metrics[best_metric], state.step), 0
        save_best(run)
        return
    state.stale += 1
    if config.schedule == "plateau" and state.stale >= config.plateau_patience:
        state.drops, state.stale = state.drops + 1, 0


def improves(metrics: dict[str, float], best_metric: str, higher_is_better: bool, best: BestEvaluation | None) -> bool:
    """Whether the metric beats the best so far; NaN never does."""
    if best_metric not in metrics:
        raise ValueError(f"best_metric '{best_metric}' is not among the evaluation's {sorted(metrics)}")
    sign = 1 if higher_is_better else -1
    return sign * metrics[best_metric] > (float("-inf") if best is None else sign * best.value)
