"""A short campaign: broken inputs end in one line and in no time, and nothing is accepted in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.mutations import MUTATIONS
from tests.fuzz.process import Outcome
from tests.fuzz.verdict import contradiction, noticed, problem_of

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_broken_inputs_do_no_harm() -> None:
    """Four cases of each kind, in a process that has used no threads, so that it may fork."""
    command = [sys.executable, "-m", "tests.fuzz", "--cases", str(4 * len(MUTATIONS)), "--seed", "2015", "--time-limit", "60"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def outcome(*command: str, code: int | None = 2, out: str = "", err: str = "") -> Outcome:
    return Outcome(command, code, out, err, 1.0)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (outcome("train", code=None), "hang"),
        (outcome("train", code=1, err="Traceback (most recent call last):\n"), "traceback"),
        (outcome("train", code=-9), "exit code -9"),
        (outcome("train", code=0, err="/lib/x.py:3: UserWarning: y\n"), "a library's warning"),
        (outcome("train", err="error: a\x1b[2J\n"), "control characters"),
        (outcome("train", err="error: " + "x" * 2000), "endless line"),
        (outcome("train", err=""), "exit code 2 without a word"),
        (outcome("train", err="error: a\nerror: b\n"), "several errors"),
    ],
)
def test_the_verdict_knows_what_no_command_may_do(bad: Outcome, problem: str) -> None:
    assert problem_of(bad) == problem


def test_the_verdict_lets_good_endings_pass() -> None:
    assert problem_of(outcome("train", err="error: 'train.steps' must be ...\n")) is None
    assert problem_of(outcome("demo", err="error: a.jpg\nerror: b.jpg\n")) is None
    assert problem_of(outcome("train", code=0, out="step 1\n")) is None


def test_silence_and_contradictions_are_seen() -> None:
    ordinary = outcome("train", code=0, out="loss 0.5\n")
    assert not noticed(outcome("train", code=0, out="loss 1.25e-3\n"), ordinary)
    assert noticed(outcome("train", code=0, out="loss 0.5\n1 x inverted box\n"), ordinary)
    good, bad = outcome("check-dataset", code=0), outcome("train", code=2)
    assert contradiction([good, bad]) and not contradiction([good, ordinary]) and not contradiction([bad, bad])
