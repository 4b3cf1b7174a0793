"""metrics.jsonl: a line for each log interval and each evaluation of a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detection.engine.callbacks import Callback, Evaluation, LogLine, RunInfo
from detection.engine.writing import writing
from detection.files import MAX_METRICS_BYTES, METRICS_FILE, parse_metrics, plain_json, read_regular, write_whole

logger = logging.getLogger(__name__)


class JsonlLog(Callback):
    """Writes metrics.jsonl. A resumed run drops the lines of steps that it does again. `before_write` may refuse a line."""

    def __init__(self, output_dir: Path, before_write: Callable[[], None]) -> None:
        self.file = output_dir / METRICS_FILE
        self.before_write = before_write

    def on_start(self, run: RunInfo) -> None:
        """Keep what an earlier part of the run wrote up to its checkpoint."""
        last = {"train": run.first_step, "evaluation": run.evaluated}
        with writing(self.file):
            rewrite_lines(self.file, lambda line: line["step"] <= last[line["kind"]])

    def on_log(self, line: LogLine) -> None:
        """Write the line."""
        self._write(line)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Write the metrics, and the losses of the validation split where there are any."""
        self._write(evaluation.line())

    def _write(self, line: Mapping[str, Any]) -> None:
        self.before_write()
        # Opened for each line: a killed run loses none, and the file may be looked at or moved meanwhile.
        with writing(self.file), self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain_json(line), allow_nan=False) + "\n")


def rewrite_lines(path: Path, keep: Callable[[LogLine], bool]) -> None:
    """Keep the records of a metrics.jsonl that `keep` accepts; an absent file becomes an empty one.

    Lines that are no records are left out with a warning; one that a killed run has left unfinished, without. Raises OSError.
    """
    records, faults = parse_metrics(read_regular(path, MAX_METRICS_BYTES) if path.exists() else b"")
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        logger.warning("%s, %s%s: left out, the other lines stay", path, faults[0], more)
    kept = [_as_json(line, value) for line, value in records if keep(value)]
    write_whole(path, b"".join(line + b"\n" for line in kept))


def _as_json(line: bytes, value: LogLine) -> bytes:
    """The line as it is, or without the NaN that runs before this version wrote, which JSON has not."""
    plain = plain_json(value)
    return line if plain == value else json.dumps(plain, allow_nan=False).encode()
