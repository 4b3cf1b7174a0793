"""TensorBoard's curves of a run, and its event file, written at once.

TensorBoard's own SummaryWriter leaves writing to a thread: a full disk shows as that thread's traceback, and a killed run
loses the last minutes. The format is the library's; only the queue is left out.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detection.engine.callbacks import Callback, Evaluation, LogLine, RunEnd, RunInfo, scalars
from detection.engine.writing import writing

FOLDER = "tensorboard"


class TensorBoardLog(Callback):
    """Writes an event file into the run's folder `tensorboard`, one for each part of a resumed run."""

    def __init__(self, output_dir: Path) -> None:
        self.folder = output_dir / FOLDER
        self._events: EventFile | None = None

    def on_start(self, run: RunInfo) -> None:
        """Open the file of this part."""
        with writing(self.folder):
            self._events = EventFile(self.folder, run.first_step + 1)

    def on_log(self, line: LogLine) -> None:
        """Add the points of a log interval."""
        self._add(line)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Add the points of an evaluation."""
        self._add(evaluation.line())

    def _add(self, line: LogLine) -> None:
        assert self._events is not None
        with writing(self.folder):
            self._events.add_scalars(line["step"], scalars(line))

    def on_end(self, end: RunEnd) -> None:
        """Close the file."""
        assert self._events is not None
        with writing(self.folder):
            self._events.close()


class EventFile:
    """Scalars of one part of a run. Methods raise OSError where nothing can be written."""

    def __init__(self, folder: Path, first_step: int) -> None:
        # Imported here: only the process that writes needs it.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter((folder / name).open("wb"))
        self._write(Event(file_version="brain.Event:2"))
        # TensorBoard drops what earlier files say of this step and later ones: the resumed run says it again.
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the curves of these names."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=points)))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
