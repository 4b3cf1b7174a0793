"""What training a detector returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from detection.engine.result import TrainResult
from detection.engine.state import BEST, LAST
from detection.inference.detector import Detector, load_detector


@dataclass(frozen=True)
class DetectorResult(TrainResult):
    """How the training ended, and the detector that came of it."""

    @cached_property
    def detector(self) -> Detector:
        """The detector of best.pt, without a validation split that of last.pt, in evaluation mode; on the GPU if there is one.

        Read from `output_dir` when it is first asked for. Raises CheckpointError where the file is gone.
        """
        best = self.output_dir / BEST
        return load_detector(best if best.exists() else self.output_dir / LAST, device="auto")
