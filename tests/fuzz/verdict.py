"""What is wrong with how a command took a broken input: nothing, or words for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.process import Outcome

LONGEST_LINE = 1200
_RAW_WARNING = re.compile(r"^\S*\.py:\d+: \w*Warning:", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def problem_of(outcome: Outcome) -> str | None:
    """What no command may do, whatever its input: a traceback, a hang, more than one line for one mistake, ..."""
    said = outcome.out + outcome.err
    if outcome.code is None:
        return "hang"
    if "Traceback (most recent call last)" in said or outcome.code == 99:
        return "traceback"
    if outcome.code not in (0, 1, 2):
        return f"exit code {outcome.code}"
    if _RAW_WARNING.search(said):
        return "a library's warning"
    if _CONTROL.search(said):
        return "control characters"
    if any(len(line) > LONGEST_LINE for line in outcome.err.splitlines()):
        return "endless line"
    return _problem_of_refusal(outcome) if outcome.code == 2 else None


def _problem_of_refusal(outcome: Outcome) -> str | None:
    lines = outcome.err.splitlines()
    errors = [
        line for line in lines if line.startswith("error: ") or re.match(r"resdet[ \w-]*: error: |[\w.-]+: error: ", line)
    ]
    if not errors:
        # check-dataset lists what is wrong among its results
        return None if "error" in outcome.out else "exit code 2 without a word"
    if len(errors) > 1 and outcome.command[0] != "demo":
        return "several errors"
    return None


def noticed(outcome: Outcome, ordinary: Outcome) -> bool:
    """Whether a command that took the input said anything that it does not say of an ordinary one. Numbers do not count."""
    return bool(_kinds_of_lines(outcome) - _kinds_of_lines(ordinary))


def _kinds_of_lines(outcome: Outcome) -> set[str]:
    return {re.sub(r"[\d.]+(e[-+]?\d+)?|\bnan\b", "#", line) for line in (outcome.out + outcome.err).splitlines()}


def contradiction(outcomes: Sequence[Outcome]) -> str | None:
    """check-dataset must not call good what a later command refuses. The outcomes are of one folder of data.

    Images without an object are good for training, as negatives; that a split of them cannot be measured is no contradiction.
    """
    checks = [outcome for outcome in outcomes if outcome.command[0] == "check-dataset"]
    refused = [outcome for outcome in outcomes if outcome.command[0] != "check-dataset" and outcome.code == 2]
    refused = [outcome for outcome in refused if "there is nothing to measure" not in outcome.err]
    if checks and refused and all(outcome.code == 0 for outcome in checks):
        return f"check-dataset calls good what {refused[0].command[0]} refuses"
    return None


def leftovers(folder: Path) -> str | None:
    """Half-written files of a command that has ended by itself."""
    found = [path.name for path in folder.rglob(".*.tmp")]
    return f"left {found[0]}" if found else None
