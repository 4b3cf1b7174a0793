"""log.txt gets what both packages report while a run lasts, and nothing changes for good."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console
from torch import nn

from detection.engine.log import LOGGED_PACKAGES, RunLog
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
    with RunLog(tmp_path, 1, console=Console(file=io.StringIO())):
        assert all(
            logger.level == logging.INFO and len(logger.handlers) == 2 + len(handlers)
            for logger, (_, handlers) in zip(loggers, before, strict=True)
        )
    assert [(logger.level, list(logger.handlers)) for logger in loggers] == before


def test_other_ranks_log_nothing(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", 1, enabled=False) as log:
        logging.getLogger("backbones").warning("a warning")
        log.start(0, lambda line: True)
    assert not (tmp_path / "run").exists()
