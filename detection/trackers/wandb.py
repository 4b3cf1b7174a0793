"""Weights & Biases. Its own environment variables hold: WANDB_PROJECT, WANDB_MODE=offline, WANDB_API_KEY, ..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detection.engine.callbacks import Evaluation, RunEnd, RunInfo
from detection.errors import TrainingError
from detection.trackers.tracker import Tracker, one_line


class WandbCallback(Tracker):
    """A run in Weights & Biases for each run here; its files lie in the output folder's `wandb`."""

    package = "wandb"

    def __init__(self, project: str | None = None, name: str | None = None) -> None:
        """`project`: None is the package's own default, WANDB_PROJECT."""
        super().__init__(name)
        self.project = project
        self._run: Any = None

    def open(self, run: RunInfo, name: str, run_id: str | None) -> str:
        """Begin or go on. The console is not sent: log.txt has it."""
        import wandb

        try:
            self._run = wandb.init(
                project=self.project,
                name=name,
                id=run_id,
                resume="allow" if run_id else None,
                dir=str(run.output_dir),
                config=dict(run.config),
                reinit="create_new",
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise TrainingError(f"wandb: {one_line(error)}; log in (wandb login), or set WANDB_MODE=offline") from None
        # A resumed run may tell steps again; wandb's own count of calls would not let it.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        return str(self._run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add points at this step."""
        self._run.log({"step": step, **values})

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Log the metrics; the best value so far is in the summary."""
        super().on_evaluation(evaluation)
        if evaluation.is_best and evaluation.best_metric is not None:
            name, value = f"best/{evaluation.best_metric}", evaluation.metrics[evaluation.best_metric]
            self._try(lambda: self._run.summary.update({name: value}))

    def close(self, end: RunEnd) -> None:
        """Finish it: as failed where an error or a signal ended the run."""
        self._run.finish(exit_code=0 if end.result is not None and not end.result.interrupted else 1)
