"""An output folder belongs to one run at a time, whatever the others do; and to nobody once its process is gone."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import nn

from detection.engine.distributed import World
from detection.engine.folder import LOCK, hold_folder
from detection.errors import TrainingError
from tests.child_process import child_environment
from tests.engine.toy import CONFIG, ToyBatch, measure, run, toy_batches
from tests.test_architecture import ROOT

ALONE = World(0, 1, torch.device("cpu"))

HOLDER = """
import os, sys, torch
from pathlib import Path
from detection.engine.distributed import World
from detection.engine.folder import hold_folder
with hold_folder(World(0, 1, torch.device("cpu")), Path(sys.argv[1])):
    if os.fork() == 0:
        sys.stdin.read()  # a worker of a loader, which lives on for a moment when its main process is killed
    print("held", flush=True)
    sys.stdin.read()
"""


def hold_in_another_process(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the folder, and has forked a child."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
        cwd=ROOT,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("resume", [False, True])
def test_the_line_names_the_other_process_and_a_killed_one_holds_nothing(tmp_path: Path, resume: bool) -> None:
    if resume:
        run(tmp_path, CONFIG.model_copy(update={"steps": 6}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.name != LOCK}
    with hold_in_another_process(tmp_path) as process:
        message = rf"in use by another run, process {process.pid} on \S+ since 20.*wait until it ends, or choose another output"
        with pytest.raises(TrainingError, match=message):
            run(tmp_path, resume=resume)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.name != LOCK} == before
        process.kill()
        process.wait()
        assert run(tmp_path, resume=resume).steps == 12  # at once, while the child still lives


def test_a_thread_may_hold_it_again_and_another_thread_may_not(tmp_path: Path) -> None:
    refused: list[str] = []

    def other() -> None:
        with pytest.raises(TrainingError) as raised, hold_folder(ALONE, tmp_path / "run"):
            pass
        refused.append(str(raised.value))

    with hold_folder(ALONE, tmp_path / "run"), hold_folder(ALONE, tmp_path / "elsewhere/../run"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"process {os.getpid()} on" in refused[0]
    with hold_folder(ALONE, tmp_path / "run"):
        pass


def test_a_run_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with hold_folder(ALONE, tmp_path / "a/b"):
        assert (tmp_path / "a/b" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with hold_folder(ALONE, tmp_path / "there"):
        pass
    assert list((tmp_path / "there").iterdir()) == []


def test_the_file_of_a_finished_run_is_empty_and_stands_in_nobodys_way(tmp_path: Path) -> None:
    run(tmp_path)
    assert (tmp_path / LOCK).read_bytes() == b""
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert run(tmp_path / "copy", resume=True).steps == 12


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def fail(self: FileLock) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(FileLock, "acquire", fail)
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path).steps == 12
    assert "is not protected against a second run: its file system cannot lock files" in caplog.text


@pytest.mark.parametrize("make", ["folder", "link", "file above"])
def test_a_folder_that_cannot_be_held_is_one_line(tmp_path: Path, make: str) -> None:
    folder = tmp_path / "run"
    if make == "file above":
        folder.write_text("")
        folder /= "deeper"
    else:
        folder.mkdir()
        (folder / LOCK).symlink_to(tmp_path / "x") if make == "link" else (folder / LOCK).mkdir()
    with pytest.raises(TrainingError, match="cannot write .*run.*choose another output folder"):
        run(folder)


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("at", [3, 9, 22])
def test_a_folder_that_is_deleted_ends_the_run(tmp_path: Path, at: int, replaced: bool) -> None:
    folder = tmp_path / "run"

    def batches(first: int) -> Iterator[ToyBatch]:
        for number, batch in enumerate(toy_batches(first), start=first):
            if number == at:
                shutil.rmtree(folder)
                if replaced:
                    folder.mkdir()
            yield batch

    with pytest.raises(TrainingError, match=r"run was deleted, emptied or replaced during the run \(run.lock is gone\)"):
        run(folder, batches=batches)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_a_folder_that_is_deleted_in_an_evaluation_ends_the_run(tmp_path: Path) -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        shutil.rmtree(tmp_path / "run")
        return measure(model)

    with pytest.raises(TrainingError, match="deleted, emptied or replaced"):
        run(tmp_path / "run", evaluate=evaluate)


def test_the_holder_is_told_though_the_lock_file_says_nonsense(tmp_path: Path) -> None:
    with hold_in_another_process(tmp_path) as process:
        for text in ("[]", json.dumps({"pid": "\x1b[31m", "host": "\n", "since": "\ud800"})):
            (tmp_path / LOCK).write_text(text)
            with pytest.raises(TrainingError, match="in use by another run") as raised:
                run(tmp_path)
            assert str(raised.value).isprintable()
        process.send_signal(signal.SIGKILL)
