"""Start many runs at the same moment in one output folder: one trains, and each of the others ends with its one line.

    python -m tests.campaigns.one_folder --starts 50 --json FILE

Three variants: all are new runs; half are new and half resume a run that was stopped; all resume it. What the one leaves is
compared bit for bit with a run that had its folder to itself.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from detection.files import write_json
from tests.campaigns.commands import Started, prepare, start
from tests.campaigns.kill_training import Reference, differences, reference
from tests.campaigns.tiny import COMMANDS, write_experiments

VARIANTS = {"new/new": (False, False), "new/resume": (False, True), "resume/resume": (True, True)}
"""Whether the even and the odd starts are told to resume."""

# How a start may end: the exit code, and what its only line of error says.
OUTCOMES = {
    "trained": (0, ""),
    "found it finished": (0, ""),
    "in use": (2, r"error: \S+ is in use by another run, process (\d+) on \S+ since [-\d: ]+: wait until it ends, or .*\n"),
    "holds another run": (2, r"error: \S+ holds another run .*\n"),
}


@dataclass(frozen=True)
class Contest:
    """What became of the starts of one variant of one command."""

    variant: str
    command: str
    outcomes: dict[str, int]
    faults: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign; 0 where there is no fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    prepare()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configs = write_experiments(folder)
        references = {command: reference(command, configs[command], folder) for command in COMMANDS}
        contests = [
            contest(variant, command, configs[command], references[command], folder / "contest", options.starts)
            for command in COMMANDS
            for variant in VARIANTS
        ]
    seconds = time.monotonic() - started
    report(contests, seconds)
    if options.json:
        rows = [asdict(each) for each in contests]
        write_json(options.json, {"starts": options.starts, "seconds": round(seconds, 1), "contests": rows})
    return int(any(each.faults for each in contests))


def contest(variant: str, command: str, config: Path, whole: Reference, folder: Path, starts: int) -> Contest:
    """Start all at once and look at what each said, and at what is left."""
    output = folder / "run"
    if any(VARIANTS[variant]):
        stop_a_run(command, config, output, folder / "stopped.txt")
    moment = time.monotonic() + 0.5 + 0.02 * starts
    processes: list[Started] = []
    for number in range(starts):
        resume = ["--resume"] if VARIANTS[variant][number % 2] else []
        arguments = ["--config", config, "--output-dir", output, *resume]
        processes.append(start(command, arguments, folder / f"{number}.txt", not_before=moment))
    codes = [process.wait() for process in processes]
    outcomes = [outcome(process.said(), code) for process, code in zip(processes, codes, strict=True)]
    counts = Counter(name for name, _ in outcomes)
    winners = [process for process, (name, _) in zip(processes, outcomes, strict=True) if name == "trained"]
    faults = [fault for _, fault in outcomes if fault]
    faults += [] if len(winners) == 1 else [f"{len(winners)} of {starts} trained"]
    named = {int(pid) for process in processes for pid in re.findall(r"another run, process (\d+)", process.said())}
    faults += [f"the lines name processes that were not started: {named}"] if named - {each.pid for each in processes} else []
    faults += differences(output, whole.folder)
    shutil.rmtree(folder)
    return Contest(variant, command, dict(counts), faults)


def stop_a_run(command: str, config: Path, output: Path, said: Path) -> None:
    """Leave a run that was stopped after some steps."""
    process = start(command, ["--config", config, "--output-dir", output], said)
    while not said.exists() or "step 4/" not in process.said():
        time.sleep(0.01)
    process.send(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM, process.said()


def outcome(said: str, code: int) -> tuple[str, str]:
    """How a start ended, by its name in OUTCOMES, and what is wrong with it."""
    errors = "".join(line for line in said.splitlines(keepends=True) if line.startswith(("error", "Traceback")))
    for name, (expected, pattern) in OUTCOMES.items():
        if code == expected and re.fullmatch(pattern, errors):
            finished = re.search(r"at step (\d+) of \1\b", said) is not None
            return ("found it finished" if code == 0 and finished else name), ""
    return "fault", f"exit code {code}: {said[-500:]}"


def report(contests: Sequence[Contest], seconds: float) -> None:
    """Print the table."""
    print(f"{'command':<10}{'variant':<16}" + "".join(f"{name:>19}" for name in OUTCOMES) + f"{'faults':>8}")
    for each in contests:
        counts = "".join(f"{each.outcomes.get(name, 0):>19}" for name in OUTCOMES)
        print(f"{each.command:<10}{each.variant:<16}{counts}{len(each.faults):>8}")
    print(f"{seconds:.0f} s")
    for each in contests:
        for fault in each.faults:
            print(f"{each.command}, {each.variant}: {fault}")


if __name__ == "__main__":
    raise SystemExit(main())
