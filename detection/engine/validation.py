"""Evaluating a run on the way: when, by whom, and what follows for its best checkpoint and its learning rate."""

from __future__ import annotations

import time
from typing import Any

import torch

from detection.engine.distributed import maximum, on_main
from detection.engine.run import Evaluate, Run, save, save_best

__all__ = ["Evaluate", "evaluate_run", "evaluation_due"]


def evaluation_due(run: Run) -> bool:
    """Whether the run stands at a step that is evaluated, and was not yet."""
    state, every = run.state, run.config.eval_every
    due = state.step == run.config.steps or (every > 0 and state.step % every == 0)
    return run.evaluate is not None and state.step > state.evaluated and due


def evaluate_run(run: Run) -> None:
    """Evaluate on rank 0, keep the best, and save that it was done. A signal breaks it off; a resumed run does it again."""
    state = run.state
    started = time.perf_counter()
    metrics = on_main(run.world, lambda: _measure(run))
    if metrics is None:
        run.stop.agreed = maximum(run.world, [run.stop.received or 0])[0]
        return
    state.evaluated, state.metrics = state.step, metrics
    state.seconds += time.perf_counter() - started
    if run.best_metric is not None:
        _compare(run, run.best_metric)
    run.log.evaluation(state.step, metrics)
    save(run)


def _measure(run: Run) -> dict[str, float] | None:
    """The metrics, or None where a signal broke the evaluation off."""
    assert run.evaluate is not None
    model = run.result
    model.eval()
    try:
        with run.stop.at_once(), torch.no_grad():
            return {name: float(value) for name, value in run.evaluate(model).items()}
    except KeyboardInterrupt:
        if run.stop.received is None:
            raise
        return None
    finally:
        model.train()


def _compare(run: Run, best_metric: str) -> None:
    """Keep the weights if they are the best so far; drop the rate of a "plateau" schedule where nothing gets better."""
    state, config = run.state, run.config
    if improves(state.metrics, best_metric, state.best):
        name = best_metric.removeprefix("-")
        state.best, state.stale = {"metric": name, "value": state.metrics[name], "step": state.step}, 0
        save_best(run)
        return
    state.stale += 1
    if config.schedule == "plateau" and state.stale >= config.plateau_patience:
        state.drops, state.stale = state.drops + 1, 0


def improves(metrics: dict[str, float], best_metric: str, best: dict[str, Any] | None) -> bool:
    """Whether the metric beats the best so far; NaN never does."""
    name = best_metric.removeprefix("-")
    if name not in metrics:
        raise ValueError(f"best_metric '{best_metric}' is not among the evaluation's {sorted(metrics)}")
    sign = -1 if best_metric.startswith("-") else 1
    return sign * metrics[name] > (sign * best["value"] if best else float("-inf"))
