"""Fixtures shared by the whole suite."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Of several processes that share the cores each computes with one thread; torch reads the variable when it is imported, and
# so do the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tests.file_server import Server, serving
from tests.shapes import write_shapes

# A loaded machine is slow, not wrong.
hypothesis.settings.register_profile("resdet", deadline=None)
hypothesis.settings.load_profile("resdet")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, or a skip that says why."""
    folder = os.environ.get("RESDET_TEST_DATA")
    if not folder:
        pytest.skip("RESDET_TEST_DATA is not set: no real data to test with")
    return Path(folder)


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """tmp_path for a module's own fixtures; removed with them, since detectors are large files and disks may be small."""
    folder = tmp_path_factory.mktemp("module")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def devkit(module_path: Path) -> Path:
    """A VOC devkit to train on: grey pictures with one bright disc or square each."""
    write_shapes(module_path / "shapes")
    return module_path / "shapes"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A file server on this machine, which downloads reach without a proxy. Modules that need more of it extend it."""
    monkeypatch.setenv("no_proxy", "*")
    with serving() as running:
        yield running


@pytest.fixture
def hook_counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many forward hooks have been "registered" with modules, and how many hooks have been "removed"."""
    counts: Counter[str] = Counter()

    def count(owner: type, name: str, key: str) -> None:
        method = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            counts[key] += 1
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    count(nn.Module, "register_forward_hook", "registered")
    count(nn.Module, "register_forward_pre_hook", "registered")
    count(RemovableHandle, "remove", "removed")
    return counts


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
