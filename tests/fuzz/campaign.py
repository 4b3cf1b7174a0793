"""Many cases, and a table of how the commands took them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fuzz.mutations import MUTATIONS, Case
from tests.fuzz.process import Outcome, run_command
from tests.fuzz.verdict import contradiction, leftovers, noticed, problem_of


@dataclass(frozen=True)
class Finding:
    """A case that a command took wrongly."""

    kind: str
    number: int
    what: str
    problem: str
    command: str
    said: str


@dataclass(frozen=True)
class Report:
    """Counts of the commands run, by how they ended, and what was wrong."""

    cases: int
    commands: int
    endings: dict[str, dict[str, int]]  # kind of case -> "accepted", "partly", "refused" -> commands
    slowest: float  # seconds
    slowest_case: str
    findings: list[Finding]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class Campaign:
    """Cases by number: kind, seed and with them the broken input follow from it alone."""

    def __init__(self, sandbox: Path, folder: Path, kinds: Sequence[str], seed: int, time_limit: float) -> None:
        self.sandbox, self.folder, self.kinds, self.seed, self.time_limit = sandbox, folder, kinds, seed, time_limit
        self.ordinary: dict[tuple[str, ...], Outcome] = {}

    def run(self, numbers: Sequence[int], report: Callable[[str], None]) -> Report:
        """Run the cases; `report` gets a line for each finding at once."""
        endings: dict[str, Counter[str]] = {kind: Counter() for kind in self.kinds}
        findings: list[Finding] = []
        slowest, slowest_case, commands = 0.0, "", 0
        for number in numbers:
            kind, case, outcomes = self.run_case(number)
            for outcome in outcomes:
                endings[kind][{0: "accepted", 1: "partly", 2: "refused"}.get(outcome.code or 0, "broken")] += 1
                commands += 1
                if outcome.seconds > slowest:
                    slowest, slowest_case = outcome.seconds, f"{number}, {kind}: {case.what}; {' '.join(outcome.command)[:200]}"
            for problem, outcome in self.problems(case, outcomes):
                said = (outcome.out + outcome.err)[-1500:]
                findings.append(Finding(kind, number, case.what, problem, " ".join(outcome.command)[:300], said))
                report(f"case {number}, {kind}: {problem}; {case.what}; {' '.join(outcome.command)[:200]}")
        return Report(
            len(numbers), commands, {kind: dict(counts) for kind, counts in endings.items()}, slowest, slowest_case, findings
        )

    def run_case(self, number: int) -> tuple[str, Case, list[Outcome]]:
        """One case in a fresh copy of the sandbox."""
        kind = self.kinds[number % len(self.kinds)]
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.sandbox, self.folder)
        case = MUTATIONS[kind](random.Random(f"{self.seed} {number}"), self.folder)
        return kind, case, [run_command(command, self.folder, self.time_limit) for command in case.commands]

    def problems(self, case: Case, outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Outcome]]:
        """What is wrong, with the command that did it."""
        for outcome in outcomes:
            problem = problem_of(outcome)
            if problem is not None:
                yield problem, outcome
            if outcome.code == 0 and case.must_refuse:
                yield "accepted what no command may accept", outcome
            if outcome.code == 0 and case.must_notice and not noticed(outcome, self._ordinary(outcome.command)):
                yield "accepted without a word", outcome
        conflict = contradiction(outcomes) if case.is_data else None
        if conflict is not None:
            yield conflict, outcomes[0]
        left = leftovers(self.folder)
        if left is not None and all(outcome.code is not None for outcome in outcomes):
            yield left, outcomes[0]

    def _ordinary(self, command: tuple[str, ...]) -> Outcome:
        if command not in self.ordinary:
            folder = self.folder.with_name("ordinary")
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.sandbox, folder)
            self.ordinary[command] = run_command(command, folder, self.time_limit)
        return self.ordinary[command]
