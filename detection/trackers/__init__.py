"""Trackers of experiments, as callbacks of a run: each needs its package, which is imported when it is used.

Another tracker is a subclass of `detection.trackers.tracker.Tracker` with three methods.
"""

from detection.trackers.mlflow import MlflowCallback
from detection.trackers.tracker import Tracker
from detection.trackers.wandb import WandbCallback

__all__ = ["TRACKERS", "MlflowCallback", "Tracker", "WandbCallback"]

TRACKERS: dict[str, type[Tracker]] = {"wandb": WandbCallback, "mlflow": MlflowCallback}
"""By the names of the option `--track`."""
