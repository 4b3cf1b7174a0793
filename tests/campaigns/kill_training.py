"""Kill short trainings at random moments, go on to the end, and compare with one that nobody killed, bit for bit.

    python -m tests.campaigns.kill_training --attempts 100 --json FILE

Each attempt is one training, jointly of a detector or of a classifier, in a folder of its own: it gets one to three signals,
SIGKILL most often, each in a process of its own, and the last process goes on to the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from detection.files import write_json
from tests.campaigns.commands import prepare, start
from tests.campaigns.tiny import COMMANDS, write_experiments

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CLOCK = ("step_time", "data_time", "images_per_second", "memory_mb")
"""What differs between two runs of the same numbers."""


@dataclass(frozen=True)
class Reference:
    """A run that nobody killed."""

    folder: Path
    seconds: float


@dataclass(frozen=True)
class Attempt:
    """What became of one training."""

    number: int
    command: str
    signals: list[str]  # with the exit code of the process that got it
    faults: list[str]  # empty: the run ended as if nobody had killed it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign; 0 where no attempt shows a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attempts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    prepare()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configs = write_experiments(folder)
        references = {command: reference(command, configs[command], folder) for command in COMMANDS}
        attempt = partial(kill_and_resume, configs, references, folder, options.seed)
        with multiprocessing.get_context("fork").Pool(options.processes) as pool:
            attempts = pool.map(attempt, range(options.attempts), chunksize=1)
    seconds = time.monotonic() - started
    report(attempts, seconds)
    if options.json:
        write_json(options.json, summary(attempts, options.seed, seconds))
    return int(any(attempt.faults for attempt in attempts))


def reference(command: str, config: Path, folder: Path) -> Reference:
    """Train to the end, twice: the second time is measured, when the system's caches are warm."""
    for name in ("first", "second"):
        output = folder / f"{command}-{name}"
        began = time.monotonic()
        process = start(command, ["--config", config, "--output-dir", output], folder / f"{output.name}.txt")
        code = process.wait()
        assert code == 0, process.said()
        seconds = time.monotonic() - began
    assert not differences(folder / f"{command}-first", output), "two runs without a kill differ"
    return Reference(output, seconds)


def kill_and_resume(
    configs: dict[str, Path], references: dict[str, Reference], folder: Path, seed: int, number: int
) -> Attempt:
    """One attempt; everything about it follows from the seed and its number, but for the machine's speed."""
    draw = random.Random(f"{seed} {number}")
    command = COMMANDS[number % len(COMMANDS)]
    whole, output = references[command], folder / f"attempt-{number}"
    signals, faults = [], []
    for _ in range(draw.choice((1, 1, 2, 3))):
        process = start(command, arguments(configs[command], output), folder / f"{output.name}.txt")
        sent = draw.choice(SIGNALS)
        time.sleep(draw.uniform(0, whole.seconds))
        process.send(sent)
        code = process.wait()
        signals.append(f"{sent.name} {code}")
        faults += said_wrongly(process.said(), code, sent)
    process = start(command, arguments(configs[command], output), folder / f"{output.name}.txt")
    code = process.wait()
    faults += [] if code == 0 else [f"the last process ended with {code}: {process.said()[-500:]}"]
    faults += differences(output, whole.folder) if code == 0 else []
    shutil.rmtree(output, ignore_errors=True)
    return Attempt(number, command, signals, faults)


def arguments(config: Path, output: Path) -> list[object]:
    """The command line of the next process: it goes on where there is something to go on with."""
    resume = ["--resume"] if (output / "last.pt").exists() else []
    return ["--config", config, "--output-dir", output, *resume]


def said_wrongly(said: str, code: int, sent: signal.Signals) -> list[str]:
    """What a process that got a signal must not do. It may have ended before; SIGKILL and a start without handlers end it."""
    expected = {0, -sent} if sent == signal.SIGKILL else {0, -sent, 128 + sent}
    faults = [] if code in expected else [f"exit code {code} after {sent.name}: {said[-500:]}"]
    return faults + (["a traceback: " + said[-500:]] if "Traceback" in said else [])


def differences(folder: Path, other: Path) -> list[str]:
    """Where two finished runs differ: files, weights, optimizer, state and log."""
    names, others = ({path.name for path in each.iterdir()} for each in (folder, other))
    found = [f"files differ: {sorted(names ^ others)}"] if names != others else []
    for path in sorted(other.glob("*.pt")):
        if path.name in names and flat(folder / path.name) != flat(path):
            found.append(f"{path.name} differs")
    return found + (["metrics.jsonl differs"] if logged(folder) != logged(other) else [])


def flat(path: Path) -> dict[str, object]:
    """A checkpoint's content by dotted names, tensors as their bytes, without what is a clock or a path."""
    contents = torch.load(path, weights_only=True)
    values: dict[str, object] = {}
    _flatten("", contents, values)
    return {name: value for name, value in values.items() if not name.endswith((".seconds", ".output_dir"))}


def _flatten(name: str, value: Any, into: dict[str, object]) -> None:
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _flatten(f"{name}.{key}", item, into)
    else:
        is_tensor = isinstance(value, torch.Tensor)
        into[name] = (str(value.dtype), tuple(value.shape), value.numpy().tobytes()) if is_tensor else value


def logged(folder: Path) -> list[dict[str, Any]]:
    """The log without its clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def summary(attempts: Sequence[Attempt], seed: int, seconds: float) -> dict[str, Any]:
    """The report as plain data."""
    sent = Counter(each for attempt in attempts for each in attempt.signals)
    return {
        "attempts": len(attempts),
        "seed": seed,
        "seconds": round(seconds, 1),
        "with_faults": sum(bool(attempt.faults) for attempt in attempts),
        "signals_and_exit_codes": dict(sorted(sent.items())),
        "faults": [asdict(attempt) for attempt in attempts if attempt.faults],
    }


def report(attempts: Sequence[Attempt], seconds: float) -> None:
    """Print the table."""
    print(f"{'command':<10}{'attempts':>9}{'signals':>9}{'SIGKILL':>9}{'faults':>8}")
    for command in COMMANDS:
        mine = [attempt for attempt in attempts if attempt.command == command]
        sent = [each for attempt in mine for each in attempt.signals]
        killed = sum(each.endswith(" -9") for each in sent)
        print(f"{command:<10}{len(mine):>9}{len(sent):>9}{killed:>9}{sum(bool(attempt.faults) for attempt in mine):>8}")
    print(f"signals and exit codes: {summary(attempts, 0, seconds)['signals_and_exit_codes']}")
    print(f"{seconds:.0f} s")
    for attempt in attempts:
        for fault in attempt.faults:
            print(f"attempt {attempt.number}, {attempt.command}, {attempt.signals}: {fault}")


if __name__ == "__main__":
    raise SystemExit(main())
