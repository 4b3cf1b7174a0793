"""What stops a run: signals, twice, in a save; an output whose reader has gone; and weights that are not finite."""

from __future__ import annotations

import io
import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from backbones import save_checkpoint
from detection.cli.main import run as run_command
from detection.engine.jsonl import rewrite_lines
from detection.engine.signals import CLOSED_OUTPUT, StopSignals
from detection.errors import TrainingError
from tests.engine.test_resume import assert_same_run
from tests.engine.toy import CONFIG, ToyBatch, ToyModel, measure, run, toy_batches

needs_hangup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")


def batches_that(act: Any, at: int) -> Any:
    """The toy's batches; `act` is called before batch `at`."""

    def batches(first: int) -> Iterator[ToyBatch]:
        for number, batch in enumerate(toy_batches(first), start=first):
            if number == at:
                act()
            yield batch

    return batches


@needs_hangup
def test_a_hangup_saves_and_resuming_is_exact(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        result = run(tmp_path / "cut", batches=batches_that(lambda: os.kill(os.getpid(), signal.SIGHUP), at=12))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (result.steps, result.signal) == (7, signal.SIGHUP)
    run(tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@needs_hangup
def test_nohup_is_respected(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(tmp_path, batches=batches_that(lambda: os.kill(os.getpid(), signal.SIGHUP), at=12)).steps == 12
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("moment", [1, 2, 3, 10])
def test_a_second_interrupt_in_a_save_ends_with_130_and_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint({"step": 1}, path)
    save, writes = torch.save, []

    def interrupted(contents: Any, file: Any) -> None:
        write = file.write

        class Watched:
            def write(self, data: bytes) -> int:
                writes.append(data)
                if len(writes) == moment:
                    raise KeyboardInterrupt
                written: int = write(data)
                return written

            def flush(self) -> None:
                file.flush()

        watched: Any = Watched()
        save(contents, watched)

    monkeypatch.setattr(torch, "save", interrupted)
    contents = {f"w{number}": torch.rand(5000) for number in range(20)}
    assert run_command(lambda _: save_checkpoint(contents, path)) == 130
    monkeypatch.undo()
    assert torch.load(path) == {"step": 1} and [each.name for each in tmp_path.iterdir()] == ["last.pt"]


class Broken(io.StringIO):
    """An output that can be written for a while."""

    def __init__(self, error: OSError, writes: int) -> None:
        super().__init__()
        self.error, self.left = error, writes

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("writes", [0, 1, 3])
def test_a_closed_output_saves_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, writes: int
) -> None:
    run(tmp_path / "whole")
    monkeypatch.setattr("sys.stdout", Broken(error, writes))
    result = run(tmp_path / "cut")
    monkeypatch.undo()
    assert (result.signal, result.interrupted) == (CLOSED_OUTPUT, True) and result.steps < 12
    assert "the output cannot be written any more" in (tmp_path / "cut/log.txt").read_text()
    run(tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_signal_that_came_first_keeps_its_number() -> None:
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        stop.note_closed_output()
    assert stop.received == signal.SIGTERM


class Poisoned(ToyModel):
    """A weight, a buffer or nothing of it becomes infinite in one step, without a loss that shows it."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(noisy=False)
        self.register_buffer("statistic", torch.zeros(3))
        self.unused = nn.Parameter(torch.zeros(2))
        self.what, self.left = what, at

    def forward(self, batch: ToyBatch) -> dict[str, torch.Tensor]:
        self.left -= 1
        if self.left == 0:
            self.get_parameter("unused").data[1] = math.inf if self.what == "weight" else 0
            self.get_buffer("statistic")[2] = math.nan if self.what == "buffer" else 0
        return super().forward(batch)


@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize(("what", "name"), [("weight", "model.unused"), ("buffer", "model.statistic")])
@pytest.mark.parametrize(("batch", "saved", "tried"), [(3, 0, 5), (13, 6, 10), (23, 10, 12)])
def test_weights_that_are_not_finite_do_not_replace_finite_ones(
    tmp_path: Path, what: str, name: str, ema: float, batch: int, saved: int, tried: int
) -> None:
    config = CONFIG.model_copy(update={"ema_decay": ema, "weight_decay": 0.0})
    with pytest.raises(TrainingError, match=rf"after step {tried}: '{name}'.* not finite, so \S+last.pt is left as it was"):
        run(tmp_path, config, model=Poisoned(what, batch), evaluate=measure if batch < 23 else None)
    last = torch.load(tmp_path / "last.pt")
    assert last["training"]["step"] == saved and all(value.isfinite().all() for value in last["model"].values())


def test_nor_do_they_on_a_signal(tmp_path: Path) -> None:
    stop = batches_that(lambda: os.kill(os.getpid(), signal.SIGTERM), at=14)
    with pytest.raises(TrainingError, match="after step 8: 'model.unused'"):
        run(tmp_path, CONFIG.model_copy(update={"weight_decay": 0.0}), model=Poisoned("weight", 14), batches=stop)
    assert torch.load(tmp_path / "last.pt")["training"]["step"] == 6


def test_a_new_run_does_not_begin_with_them(tmp_path: Path) -> None:
    model = ToyModel()
    with torch.no_grad():
        next(model.parameters())[0] = math.nan
    with pytest.raises(TrainingError, match="after step 0: 'model.layers.0.weight'"):
        run(tmp_path, model=model)
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_is_null_in_the_log(tmp_path: Path, value: float) -> None:
    run(tmp_path, evaluate=lambda model: {"AP": 0.5, "AR": value})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "metrics.jsonl").read_text()
    found = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert [line["metrics"]["AR"] for line in found if line["kind"] == "evaluation"] == [None, None]
    assert run(tmp_path, resume=True).steps == 12


def test_lines_of_older_runs_are_mended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1, "a": 0.10}\n{"kind": "train", "step": 2, "a": NaN}\n')
    rewrite_lines(path, lambda line: True)
    assert path.read_text() == '{"kind": "train", "step": 1, "a": 0.10}\n{"kind": "train", "step": 2, "a": null}\n'
