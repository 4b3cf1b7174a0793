"""TensorBoard itself reads what is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detection.engine.events import EventFile


def test_tensorboard_reads_the_curves_and_forgets_what_was_repeated(tmp_path: Path) -> None:
    for first, last in ((1, 5), (4, 6)):  # a run killed at step 5 and resumed at step 3
        events = EventFile(tmp_path, first)
        for step in range(first, last + 1):
            events.add_scalars(step, {"loss": first * 10.0 + step, "rate": 0.5})
        events.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(point.step, point.value) for point in read.Scalars("loss")] == [
        (1, 11.0),
        (2, 12.0),
        (3, 13.0),
        (4, 44.0),
        (5, 45.0),
        (6, 46.0),
    ]
    assert read.Scalars("rate")[-1].value == pytest.approx(0.5)
