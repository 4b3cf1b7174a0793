"""MLflow. Its own environment variables hold: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ..."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from detection.engine.callbacks import RunEnd, RunInfo
from detection.errors import TrainingError
from detection.trackers.tracker import Tracker, one_line

PARAMETERS_AT_ONCE, PARAMETER_LENGTH = 100, 500  # limits of servers


class MlflowCallback(Tracker):
    """A run in MLflow for each run here. The config's keys are its parameters."""

    package = "mlflow"

    def __init__(self, experiment: str | None = None, name: str | None = None) -> None:
        """`experiment`: None is MLFLOW_EXPERIMENT_NAME, or else "resdet"."""
        super().__init__(name)
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "resdet"
        self._client: Any = None
        self._run_id = ""

    def open(self, run: RunInfo, name: str, run_id: str | None) -> str:
        """Begin or go on."""
        import mlflow

        try:
            self._client = mlflow.MlflowClient()
            if run_id is None:
                self._run_id = self._client.create_run(self._experiment_id(), run_name=name).info.run_id
                self._log_parameters(run.config)
            else:
                self._client.update_run(run_id, status="RUNNING")
                self._run_id = run_id
        except mlflow.MlflowException as error:
            raise TrainingError(f"mlflow: {one_line(error)}; look at MLFLOW_TRACKING_URI, or train without it") from None
        return self._run_id

    def _experiment_id(self) -> str:
        known = self._client.get_experiment_by_name(self.experiment)
        return str(known.experiment_id if known else self._client.create_experiment(self.experiment))

    def _log_parameters(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        parameters = [Param(key, value) for key, value in parameters_of(config).items()]
        for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
            self._client.log_batch(self._run_id, params=parameters[start : start + PARAMETERS_AT_ONCE])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add points at this step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def close(self, end: RunEnd) -> None:
        """Say how it ended."""
        stopped = isinstance(end.error, KeyboardInterrupt) or (end.result is not None and end.result.interrupted)
        self._client.set_terminated(self._run_id, status="KILLED" if stopped else "FAILED" if end.error else "FINISHED")


def parameters_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A config's keys, dotted, with their values as text: {"train": {"steps": 5}} -> {"train.steps": "5"}."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= parameters_of(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = (value if isinstance(value, str) else json.dumps(value))[:PARAMETER_LENGTH]
    return found
