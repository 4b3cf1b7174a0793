"""Early stopping: evaluations without a better metric end a run, however often it was resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detection.config import TrainConfig
from detection.engine.advice import advise_schedule
from tests.engine.test_resume import Killed, assert_same_run
from tests.engine.test_stopping import batches_that
from tests.engine.toy import CONFIG, run

PATIENT = CONFIG.model_copy(update={"steps": 20, "eval_every": 2, "stop_patience": 3})


def measured(values: list[float], first: int = 0) -> Callable[[nn.Module], dict[str, float]]:
    rest = iter(values[first:])
    return lambda model: {"AP": next(rest)}


# Best at step 4, equal at 6, worse at 8, no number at 10: the third without a better one.
VALUES = [0.1, 0.3, 0.3, 0.2, float("nan"), 0.9, 0.9, 0.9, 0.9, 0.9]


def test_patience_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, PATIENT, evaluate=measured(VALUES))
    assert (result.steps, result.best, result.interrupted) == (10, 0.3, False)
    assert result.stopped_by == "train.stop_patience: 3 evaluation(s) without a better value"
    assert "train.stop_patience: 3 evaluation(s) without a better value at step 10 of 20; saved" in capsys.readouterr().out


def test_lower_may_be_better(tmp_path: Path) -> None:
    result = run(tmp_path, PATIENT, evaluate=measured([0.5, 0.4, 0.3, 0.2, 0.1, 0.2, 0.2, 0.2]), higher_is_better=False)
    assert (result.steps, result.best) == (16, 0.1)


@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.5}, {"schedule": "plateau", "lr_drops": (), "plateau_patience": 1}])
def test_a_resumed_run_counts_on(tmp_path: Path, more: dict[str, Any]) -> None:
    config = PATIENT.model_copy(update=more)
    whole = run(tmp_path / "whole", config, evaluate=measured(VALUES))

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "cut", config, evaluate=measured(VALUES), batches=batches_that(kill, 17))  # in step 9
    cut = run(tmp_path / "cut", config, evaluate=measured(VALUES, first=4), resume=True)
    assert (cut.steps, cut.stopped_by) == (whole.steps, whole.stopped_by) == (10, whole.stopped_by)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_run_out_of_patience_stays_ended_until_it_gets_more(tmp_path: Path) -> None:
    first = run(tmp_path, PATIENT, evaluate=measured(VALUES))
    before = (tmp_path / "last.pt").read_bytes()
    again = run(tmp_path, PATIENT, evaluate=measured([]), resume=True)
    assert (again.steps, again.stopped_by) == (10, first.stopped_by) and (tmp_path / "last.pt").read_bytes() == before
    more = PATIENT.model_copy(update={"stop_patience": 4})
    assert run(tmp_path, more, evaluate=measured(VALUES, first=5), resume=True).steps == 20


def test_a_checkpoint_that_did_not_count_yet_begins_to(tmp_path: Path) -> None:
    config = PATIENT.model_copy(update={"stop_patience": 0, "steps": 4})
    run(tmp_path, config, evaluate=measured([0.5, 0.4]))
    last = torch.load(tmp_path / "last.pt")
    assert last["training"]["progress"].pop("since_best") == 1
    torch.save(last, tmp_path / "last.pt")
    result = run(tmp_path, PATIENT, evaluate=measured([0.4] * 10), resume=True)
    assert result.steps == 10


def test_the_last_step_is_no_early_stop(tmp_path: Path) -> None:
    result = run(tmp_path, PATIENT.model_copy(update={"steps": 10}), evaluate=measured(VALUES))
    assert (result.steps, result.stopped_by) == (10, None)


def test_patience_without_evaluations() -> None:
    with pytest.raises(ValueError, match=r"train.stop_patience 2 counts evaluations: set train.eval_every"):
        TrainConfig(stop_patience=2)
    (sentence,) = advise_schedule(TrainConfig(stop_patience=2, eval_every=5), evaluated=False)
    assert "train.stop_patience 2 has no effect" in sentence
