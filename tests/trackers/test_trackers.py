"""Trackers, with the real packages and no network: what they keep of a run is read back."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from detection.engine.callbacks import Callback, RunEnd, RunInfo, StopTraining, scalars
from detection.errors import ConfigError, TrainingError
from detection.trackers import TRACKERS, MlflowCallback, Tracker, WandbCallback
from detection.trackers.mlflow import parameters_of
from tests.engine.test_stopping import batches_that
from tests.engine.toy import CONFIG, run

needs_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
needs_mlflow = pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
TIMED = ("step_time", "data_time", "images_per_second", "memory_mb")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module_path: Path) -> None:
    """No network, no account, nothing in the user's folders."""
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CONFIG_DIR": str(tmp_path / "wandb_config"),
        "WANDB_CACHE_DIR": str(tmp_path / "wandb_cache"),
        "WANDB_X_DISABLE_STATS": "true",
        "WANDB_DISABLE_GIT": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{module_path}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }.items():
        monkeypatch.setenv(name, value)


def points_in_log(folder: Path) -> dict[str, dict[int, float]]:
    """The curves as metrics.jsonl has them."""
    curves: dict[str, dict[int, float]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name, value in scalars(record).items():
            curves.setdefault(name, {})[record["step"]] = value
    return curves


def stopping(step: int) -> Callback:
    class Stop(Callback):
        def on_log(self, line: dict[str, Any]) -> None:
            if line["step"] == step:
                raise StopTraining

    return Stop()


class Memory(Tracker):
    """Keeps what it is told; fails where it is asked to."""

    package = "json"  # there is a module of that name

    def __init__(self, fails: bool = False) -> None:
        super().__init__("named")
        self.fails, self.told = fails, list[Any]()

    def open(self, run: RunInfo, name: str, run_id: str | None) -> str:
        self.told.append((name, run_id))
        return "id-1"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self.fails:
            raise ConnectionError("no route to the server")
        self.told.append((step, *values))

    def close(self, end: RunEnd) -> None:
        self.told.append("closed")


def test_a_tracker_gets_finite_values_and_the_same_id_again(tmp_path: Path) -> None:
    values = iter([0.5, float("nan")])
    first, second = Memory(), Memory()
    run(tmp_path, callbacks=[first, stopping(8)], evaluate=lambda model: {"AP": next(values)})
    run(tmp_path, callbacks=[second], resume=True, evaluate=lambda model: {"AP": next(values)})
    assert first.told[0] == ("named", None) and second.told[0] == ("named", "id-1")
    assert first.told[2] == (6, "evaluation/AP") and second.told[-2] == (12,)
    assert {"loss", "loss/near", "learning_rate"} <= set(first.told[1]) and first.told[-1] == second.told[-1] == "closed"


def test_a_tracker_that_fails_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(tmp_path, callbacks=[Memory(fails=True)]).steps == 12
    assert [text for text in caplog.messages if "no route" in text] == [
        "json fails, and the run goes on without it: 'no route to the server'"
    ]


def test_a_damaged_id_is_named(tmp_path: Path) -> None:
    run(tmp_path, callbacks=[Memory(), stopping(4)])
    (tmp_path / "json.json").write_text('{"run_id": 5}')
    with pytest.raises(TrainingError, match=r"json.json holds no run_id: remove it"):
        run(tmp_path, callbacks=[Memory()], resume=True)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"^{name} is not installed: pip install 'resdet\[{name}\]'$"):
        TRACKERS[name]()


def test_parameters_are_dotted_keys() -> None:
    config = {"train": {"steps": 5, "name": "x", "none": None}, "data": {"train": [{"root": "a"}]}, "long": "y" * 900}
    assert parameters_of(config) == {
        "train.steps": "5",
        "train.name": "x",
        "train.none": "null",
        "data.train": '[{"root": "a"}]',
        "long": "y" * 500,
    }


@needs_wandb
def test_wandb_keeps_the_curves_and_goes_on_with_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, callbacks=[WandbCallback(project="toys"), stopping(8)])
    run_id = json.loads((folder / "wandb.json").read_text())["run_id"]
    run(folder, callbacks=[WandbCallback(project="toys")], resume=True)
    files = sorted((folder / "wandb").glob(f"offline-run-*-{run_id}/*.wandb"))
    assert len(files) == 2 and json.loads((folder / "wandb.json").read_text())["run_id"] == run_id
    curves: dict[str, dict[int, float]] = {}
    for record in [record for file in files for record in wandb_history(file)]:
        for name, value in record.items():
            if not name.startswith("_") and name != "step":
                curves.setdefault(name, {})[int(record["step"])] = value
    expected = points_in_log(folder)
    assert curves.keys() == expected.keys()
    for name in expected.keys() - set(TIMED):
        assert curves[name] == pytest.approx(expected[name])


def wandb_history(file: Path) -> list[dict[str, float]]:
    """What of the curves wandb would send."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    records = [messages.Record.FromString(data) for data in leveldb_log(file.read_bytes(), start=7)]
    histories = [record.history.item for record in records if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items} for items in histories]


def leveldb_log(data: bytes, start: int, block: int = 2**15) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: pieces of a checksum, a length, a kind (1: whole, 4: the last one) and data."""
    position, record = start, b""
    while position + 7 <= len(data):
        left = block - position % block
        if left < 7 or data[position + 6] == 0:  # what is left of a block is padding
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


@needs_mlflow
def test_mlflow_keeps_the_curves_and_goes_on_with_its_run(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    folder = tmp_path / "run"
    stop = batches_that(lambda: os.kill(os.getpid(), signal.SIGTERM), 16)
    run(folder, callbacks=[MlflowCallback("toys")], batches=stop)
    run_id = json.loads((folder / "mlflow.json").read_text())["run_id"]
    client = MlflowClient()
    assert client.get_run(run_id).info.status == "KILLED"
    run(folder, callbacks=[MlflowCallback("toys")], resume=True)
    experiment = client.get_experiment_by_name("toys")
    assert experiment is not None
    (kept,) = client.search_runs([experiment.experiment_id])
    assert (kept.info.run_id, kept.info.status, kept.info.run_name) == (run_id, "FINISHED", "run")
    assert kept.data.params["train.steps"] == str(CONFIG.steps)
    expected = points_in_log(folder)
    assert kept.data.metrics.keys() == expected.keys()
    for name in ("loss", "loss/near", "evaluation/AP", "learning_rate"):
        history = client.get_metric_history(run_id, name)
        assert {point.step: point.value for point in history} == pytest.approx(expected[name])


@needs_mlflow
def test_mlflow_without_its_run_or_its_server_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "run", callbacks=[stopping(4)])
    (tmp_path / "run/mlflow.json").write_text('{"run_id": "0123456789abcdef0123456789abcdef"}')
    with pytest.raises(TrainingError, match=r"^mlflow: .*0123456789abcdef.* MLFLOW_TRACKING_URI"):
        run(tmp_path / "run", callbacks=[MlflowCallback()], resume=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "unknown://somewhere")
    with pytest.raises(TrainingError, match=r"^mlflow: .*; look at MLFLOW_TRACKING_URI"):
        run(tmp_path / "other", callbacks=[MlflowCallback()])
