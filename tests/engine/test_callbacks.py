"""What callbacks are told, when, and what they may do to a run."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.cli.output import exit_code_if_stopped
from detection.engine.callbacks import (
    Callback,
    Evaluation,
    RunEnd,
    RunInfo,
    SavedCheckpoint,
    StopTraining,
    scalars,
)
from detection.errors import TrainingError
from tests.engine.test_resume import Killed, assert_same_run
from tests.engine.test_stopping import batches_that
from tests.engine.toy import CONFIG, ToyModel, run


class Told(Callback):
    """Notes each call; `act` gets the note's name and step, and may raise."""

    def __init__(self, act: Any = None) -> None:
        self.notes: list[tuple[str, Any]] = []
        self.act = act

    def note(self, name: str, what: Any, step: int = -1) -> None:
        self.notes.append((name, what))
        if self.act is not None:
            self.act(name, step)

    def on_start(self, run: RunInfo) -> None:
        assert (run.output_dir / "last.pt").exists()
        self.note("start", run.first_step)

    def on_log(self, line: dict[str, Any]) -> None:
        self.note("log", line["step"], line["step"])

    def on_evaluation(self, evaluation: Evaluation) -> None:
        self.note("evaluation", (evaluation.step, evaluation.is_best), evaluation.step)

    def on_checkpoint(self, checkpoint: SavedCheckpoint) -> None:
        assert torch.load(checkpoint.path)["training"]["step"] == checkpoint.step
        assert checkpoint.is_best == (checkpoint.path.name == "best.pt")
        self.note("checkpoint", (checkpoint.path.name, checkpoint.step), checkpoint.step)

    def on_end(self, end: RunEnd) -> None:
        self.note("end", type(end.error).__name__ if end.error else end.result and end.result.steps)


def raising(error: BaseException, name: str, step: int = -1) -> Any:
    def act(called: str, at: int) -> None:
        if (called, at) == (name, step):
            raise error

    return act


WHOLE = [
    ("start", 0),
    ("log", 4),
    ("checkpoint", ("last.pt", 5)),
    ("checkpoint", ("last.pt", 6)),
    ("evaluation", (6, True)),
    ("checkpoint", ("best.pt", 6)),
    ("checkpoint", ("last.pt", 6)),
    ("log", 8),
    ("checkpoint", ("last.pt", 10)),
    ("log", 12),
    ("checkpoint", ("last.pt", 12)),
    ("evaluation", (12, True)),
    ("checkpoint", ("best.pt", 12)),
    ("checkpoint", ("last.pt", 12)),
    ("end", 12),
]
VALUES = itertools.count()
BETTER: dict[str, Any] = {"evaluate": lambda model: {"AP": float(next(VALUES))}}


@pytest.fixture(scope="module")
def whole(module_path: Path) -> Path:
    run(module_path)
    return module_path


def test_the_calls_of_a_run_in_their_order(tmp_path: Path) -> None:
    told = Told()
    run(tmp_path, callbacks=[told], **BETTER)
    assert told.notes == WHOLE


@pytest.mark.parametrize("batch", [1, 9, 13, 21])
def test_a_resumed_run_calls_at_the_same_steps(tmp_path: Path, batch: int) -> None:
    def kill() -> None:
        raise Killed

    first, second = Told(), Told()
    with pytest.raises(Killed):
        run(tmp_path, callbacks=[first], batches=batches_that(kill, batch), **BETTER)
    run(tmp_path, callbacks=[second], resume=True, **BETTER)
    done = torch.load(tmp_path / "last.pt")["training"]["step"]
    (_, begun), *rest = second.notes
    assert first.notes[-1] == ("end", "Killed") and done == 12
    assert rest == [note for note in WHOLE[1:] if note[0] == "end" or step_of(note) > begun]
    assert [note for note in first.notes if note[0] != "end"] == WHOLE[: len(first.notes) - 1]


def step_of(note: tuple[str, Any]) -> int:
    name, what = note
    return int(what if name == "log" else what[1] if name == "checkpoint" else what[0])


def test_numbers_are_on_disk_before_a_callback_is_told(tmp_path: Path) -> None:
    class Reads(Callback):
        def on_log(self, line: dict[str, Any]) -> None:
            assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == line

        def on_evaluation(self, evaluation: Evaluation) -> None:
            assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == evaluation.line()

    assert run(tmp_path, callbacks=[Reads()]).steps == 12


@pytest.mark.parametrize(
    ("name", "step", "steps"), [("start", -1, 0), ("log", 4, 4), ("checkpoint", 5, 5), ("evaluation", 6, 6), ("log", 8, 8)]
)
def test_a_callback_stops_the_run_which_goes_on_exactly(
    tmp_path: Path, whole: Path, name: str, step: int, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    asking, other = Told(raising(StopTraining("enough"), name, step)), Told()
    result = run(tmp_path, callbacks=[asking, other])
    assert (result.steps, result.stopped_by, result.signal, result.interrupted) == (steps, "Told: enough", None, False)
    assert exit_code_if_stopped(result) is None
    assert f"Told: enough at step {steps} of 12; saved {tmp_path / 'last.pt'}" in capsys.readouterr().out
    assert asking.notes == other.notes and other.notes[-1] == ("end", steps)
    assert torch.load(tmp_path / "last.pt")["training"]["step"] == steps
    assert run(tmp_path, resume=True).stopped_by is None
    assert_same_run(tmp_path, whole)


def test_a_run_that_is_stopped_at_its_end_was_not_stopped(tmp_path: Path) -> None:
    assert run(tmp_path, callbacks=[Told(raising(StopTraining(), "log", 12))]).stopped_by is None


def test_a_stopped_run_has_its_averaged_weights(tmp_path: Path) -> None:
    model = ToyModel()
    run(
        tmp_path, CONFIG.model_copy(update={"ema_decay": 0.5}), model=model, callbacks=[Told(raising(StopTraining(), "log", 8))]
    )
    average = torch.load(tmp_path / "last.pt")["training"]["ema"]
    torch.testing.assert_close(model.state_dict(), {name: average[f"module.{name}"] for name in model.state_dict()})


@pytest.mark.parametrize(
    ("name", "step"), [("start", -1), ("log", 8), ("checkpoint", 6), ("evaluation", 6), ("evaluation", 12)]
)
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt()])
def test_an_error_of_a_callback_ends_the_run_and_spoils_nothing(
    tmp_path: Path, whole: Path, name: str, step: int, error: BaseException
) -> None:
    told, broken = Told(), Told(raising(error, name, step))
    with pytest.raises(type(error)):
        run(tmp_path, callbacks=[told, broken])
    assert told.notes[-1] == ("end", type(error).__name__)
    assert broken.notes[-1] == (("start", 0) if name == "start" else told.notes[-1])  # what was not started is not ended
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, whole)


def test_the_end_is_told_after_a_signal(tmp_path: Path) -> None:
    told = Told()
    run(tmp_path, callbacks=[told], batches=batches_that(lambda: os.kill(os.getpid(), signal.SIGTERM), 12))
    assert told.notes[-1] == ("end", 7)


def test_the_end_is_told_to_all_and_its_own_error_comes_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told, one, two = Told(), Told(raising(ZeroDivisionError("one"), "end")), Told(raising(ValueError("two"), "end"))
    with pytest.raises(ValueError, match="two"):  # the last is ended first
        run(tmp_path, callbacks=[told, one, two])
    assert told.notes[-1] == ("end", 12) and "ZeroDivisionError: one" in caplog.text
    with pytest.raises(TrainingError, match="holds another run"):
        run(tmp_path, callbacks=[told])
    assert told.notes[-1] == ("end", 12)  # a run that never began
    end = Told(raising(StopTraining("too late"), "end"))
    assert run(tmp_path, callbacks=[end], resume=True).steps == 12


def test_the_error_of_the_run_is_not_hidden_by_that_of_an_end(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    def act(name: str, step: int) -> None:
        if name in ("log", "end"):
            raise ValueError(f"of {name}")

    with pytest.raises(ValueError, match="of log"):
        run(tmp_path, callbacks=[Told(act)])
    assert "ValueError: of end" in caplog.text


def test_the_first_request_counts_and_a_callback_without_a_reason_is_named(tmp_path: Path) -> None:
    class Patient(Told):
        pass

    asking = [Patient(raising(StopTraining(), "log", 4)), Told(raising(StopTraining("second"), "log", 4))]
    assert run(tmp_path, callbacks=asking).stopped_by == "Patient"


def test_scalars_of_lines() -> None:
    line = {"kind": "train", "step": 3, "loss": 1.5, "losses": {"a": 1.0, "b": 0.5}, "learning_rate": 0.1}
    assert scalars(line) == {"loss": 1.5, "loss/a": 1.0, "loss/b": 0.5, "learning_rate": 0.1}
    evaluation = Evaluation(3, {"AP": 0.25}, losses={"a": 1.0, "b": 2.0})
    assert scalars(evaluation.line()) == {"evaluation/AP": 0.25, "val_loss": 3.0, "val_losses/a": 1.0, "val_losses/b": 2.0}
    (value,) = scalars({"kind": "evaluation", "step": 1, "metrics": {"AP": None}}).values()
    assert math.isnan(value)
