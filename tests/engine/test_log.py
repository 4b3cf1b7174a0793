"""log.txt gets what both packages report while a run lasts, and nothing changes for good."""

from __future__ import annotations

import errno
import io
import logging
import os
from pathlib import Path

import pytest
from rich.console import Console
from torch import nn

from detection.engine.jsonl import rewrite_lines
from detection.engine.log import LOGGED_PACKAGES, RunLog
from detection.engine.writing import writing
from detection.errors import TrainingError
from tests.engine.toy import CONFIG, run


def test_what_backbones_report_reaches_the_log_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        logging.getLogger("backbones.weights.zoo").warning("%s is damaged: made again", "x.pt")
        logging.getLogger("detection.inference.detector").info("a word of ours")
        return {"AP": 0.0}

    run(tmp_path, CONFIG.model_copy(update={"steps": 1}), evaluate=evaluate)
    log = (tmp_path / "log.txt").read_text()
    assert log.count("x.pt is damaged: made again") == 1 and log.count("a word of ours") == 1
    said = capsys.readouterr()
    assert "x.pt is damaged: made again" in said.out and said.err == ""


def test_loggers_are_as_before_when_the_log_is_closed(tmp_path: Path) -> None:
    loggers = [logging.getLogger(name) for name in LOGGED_PACKAGES]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    with RunLog(tmp_path, console=Console(file=io.StringIO())):
        assert all(
            logger.level == logging.INFO and len(logger.handlers) == 2 + len(handlers)
            for logger, (_, handlers) in zip(loggers, before, strict=True)
        )
    assert [(logger.level, list(logger.handlers)) for logger in loggers] == before


def test_other_ranks_log_nothing(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", enabled=False):
        logging.getLogger("backbones").warning("a warning")
    assert not (tmp_path / "run").exists()


RECORD = b'{"kind": "train", "step": 1}'
BROKEN_LINES = {
    "bytes": b"\xff\xfe\x00",
    "latin1": b'{"kind": "train", "step": 1, "note": "\xe9"}',
    "utf16": RECORD.decode().encode("utf-16"),
    "zeros": bytes(200),
    "nested": b"[" * 200_000,
    "digits": b'{"kind": "train", "step": ' + b"9" * 6000 + b"}",
    "text": b'{"kind": "train", "step": "1"}',
    "float": b'{"kind": "train", "step": 1e400}',
    "null": b'{"kind": "train", "step": null}',
    "bool": b'{"kind": "train", "step": true}',
    "negative": b'{"kind": "train", "step": -1}',
    "no kind": b'{"step": 1}',
    "other kind": b'{"kind": ["train"], "step": 1}',
    "list": b"[1]",
    "empty": b"",
    "half": RECORD[:9],
}


@pytest.mark.parametrize("line", BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_a_broken_line_is_left_out_with_a_warning_and_the_others_stay(
    line: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([RECORD, line, RECORD, b""]))
    rewrite_lines(path, lambda record: record["step"] <= 1)
    assert path.read_bytes() == (RECORD + b"\n") * 2
    assert len(caplog.messages) == 1 and "metrics.jsonl, line 2 is " in caplog.text and "left out" in caplog.text


def test_a_run_with_broken_lines_is_resumed(tmp_path: Path) -> None:
    run(tmp_path, CONFIG.model_copy(update={"steps": 2}))
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(line + b"\n" for line in BROKEN_LINES.values()) + whole)
    run(tmp_path, CONFIG.model_copy(update={"steps": 2}), resume=True)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["metrics.jsonl", "log.txt"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_the_place_of_a_log_is_not_waited_for(name: str, tmp_path: Path) -> None:
    run(tmp_path, CONFIG.model_copy(update={"steps": 1}))
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(TrainingError, match=f"cannot write .*{name}: .*pipe.*; move away what is in its place"):
        run(tmp_path, CONFIG.model_copy(update={"steps": 2}), resume=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_is_full_from_the_start_names_the_log(tmp_path: Path) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"cannot write .*: No space left on device; free some space or choose another"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "; free some space or choose"),
        (errno.ENOTDIR, "; move away what .* or choose"),
        (errno.EACCES, "; choose"),
    ],
)
def test_what_cannot_be_written_says_what_helps(number: int, fix: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=fix), writing(tmp_path):
        raise OSError(number, os.strerror(number))
