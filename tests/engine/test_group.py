"""Whatever ends one process of a distributed run ends all: one line in all, exit code 2, no traceback, no hang."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from detection.config import TrainConfig
from detection.engine import group
from detection.engine.distributed import World
from detection.engine.group import process_group
from detection.errors import ConfigError
from tests.child_process import child_environment
from tests.test_architecture import ROOT

# Which lines all processes print together, and their exit codes by rank.
LINES: dict[str, tuple[str, dict[str, int]]] = {
    "bad image": (r"error: a\.jpg is damaged", {"0": 2, "1": 2}),
    "bad images": (r"error: [01]\.jpg is damaged", {"0": 2, "1": 2}),
    "rank 0 cannot write": (r"error: cannot write \S+tensorboard: File exists; .*", {"0": 2, "1": 2}),
    "evaluation fails": (r"error: val\.jpg is damaged", {"0": 2, "1": 2}),
    "rank 0 is killed": (r"error: process 1 of 2 lost the connection to another: .*\(--resume\).*", {"0": -9, "1": 2}),
    "rank 1 is killed": (r"error: process 0 of 2 lost the connection to another: .*\(--resume\).*", {"0": 2, "1": -9}),
    "rank 1 is interrupted twice": ("interrupted", {"0": 2, "1": 130}),
    "folder in use": (r"error: \S+ is in use by another run, process \d+ on .*", {"0": 2, "1": 2}),
    "rank 1 is absent": (
        r"error: process 0 of 2 did not meet the others at '127\.0\.0\.1', port \d+, within 2 s: .*1/2 clients joined; "
        r"start all with the same MASTER_ADDR, .* \(train\.connect_timeout\)",
        {"0": 2},
    ),
    "rank 0 is absent": (r"error: process 1 of 2 did not meet .* Connection refused; start all .*", {"1": 2}),
    "port in use": (r"error: process 0 of 2 did not meet .* address already in use; start all .* on a free port, .*", {"0": 2}),
    "rank 1 is slow": (
        r"error: process 0 of 2 lost the connection to another: Timed out .* longer train\.collective_timeout",
        {"0": 2, "1": 2},
    ),
}


@pytest.fixture(scope="module")
def results(module_path: Path) -> dict[str, Any]:
    """What the ranks said in each case, and their exit codes."""
    command = [sys.executable, "-m", "tests.engine.ranks", str(module_path)]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, Any] = json.loads((module_path / "results.json").read_text())
    return results


@pytest.mark.parametrize("case", LINES)
def test_all_processes_end_with_one_line(results: dict[str, Any], case: str) -> None:
    pattern, codes = LINES[case]
    said = "".join(results[case]["said"].values())
    assert results[case]["codes"] == codes, said
    lines = [line for line in said.splitlines() if not re.match(r"step |\d+ images per step|cpu, fp32", line)]
    assert len(lines) == 1 and re.fullmatch(pattern, lines[0]), said


@pytest.mark.parametrize("rank", [0, 1])
def test_a_bug_keeps_its_traceback_where_it_is(results: dict[str, Any], rank: int) -> None:
    found = results[f"rank {rank} has a bug"]
    assert found["codes"] == {str(rank): 1, str(1 - rank): 2}
    assert "ZeroDivisionError: a bug" in found["said"][str(rank)] and "Traceback" not in found["said"][str(1 - rank)]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "zero"}, "RANK is 'zero', but must be a whole number from 0"),
        ({"RANK": "-1"}, "RANK is '-1', but must be"),
        ({"RANK": "1_0"}, "RANK is '1_0', but must be"),
        ({"RANK": "\u0663"}, "RANK is .*, but must be"),
        ({"RANK": ""}, "RANK is '', but must be"),
        ({"RANK": "9" * 5000}, "RANK is '9999.*, but must be"),
        ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK is '1.5', but must be"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', but must be a whole number from 1"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 and WORLD_SIZE=2: ranks go from 0 to 1"),
        ({"RANK": "3"}, "RANK=3 and WORLD_SIZE=1"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but not MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "http"}, "MASTER_PORT is 'http', but must be"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "70000"}, "MASTER_PORT is '70000'.*to 65535"),
    ],
)
def test_an_environment_that_is_no_world_is_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(key, raising=False)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=message), process_group(World.from_environment()):
        pass


def test_an_address_that_does_not_exist_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "no-such-host.invalid")
    monkeypatch.setenv("MASTER_PORT", "29500")
    world = World(1, 2, torch.device("cpu"))
    with (
        pytest.raises(ValueError, match="did not meet the others at 'no-such-host.invalid', port 29500, within 0.1 s"),
        process_group(world, TrainConfig(connect_timeout=0.1)),
    ):
        pass


@pytest.mark.parametrize(("rank", "leaves", "ends"), [(0, False, True), (0, True, False), (1, False, False)])
def test_a_process_that_waits_on_its_gpu_is_ended(monkeypatch: pytest.MonkeyPatch, rank: int, leaves: bool, ends: bool) -> None:
    """Rank 1 has failed; who does not leave by itself would wait for ever."""
    store, left = dist.HashStore(), threading.Event()
    codes: list[int] = []
    store.set(group.FAILURE, json.dumps([1, "DatasetError", "a.jpg is damaged"]))
    monkeypatch.setattr(os, "_exit", codes.append)
    timer = threading.Timer(1.5, left.set)
    if leaves or not ends:
        timer.start()
    group._end_with_others(store, rank, left, grace=5.0 if leaves else 0.1)
    timer.cancel()
    assert codes == ([2] if ends else [])
