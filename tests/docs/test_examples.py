"""The scripts of docs/examples run, as a reader would run them."""

import json
import sys

import pytest
import torch

from docs.examples import backbone_elsewhere, own_data
from tests.shapes import write_config


def test_own_data_is_trained_on_evaluated_and_detected_in(tmp_path, capsys):
    assert own_data.main(["--output", str(tmp_path), "--steps", "2"]) == 0
    shown = capsys.readouterr().out
    assert "2 steps in" in shown and "COCO AP" in shown
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 4
    assert (tmp_path / "run/best.pt").exists()


def test_the_backbone_learns_another_task():
    assert backbone_elsewhere.main(["--backbone", "resnet18", "--steps", "15"]) > 0.8


def test_the_head_gives_a_score_for_each_pixel_at_any_size():
    model = backbone_elsewhere.PixelClassifier(backbone_elsewhere.build_backbone("resnet18"))
    assert model(torch.randint(256, (1, 3, 70, 90), dtype=torch.uint8)).shape == (1, 70, 90)


def test_a_search_breaks_off_trials_that_are_behind(tmp_path, devkit, monkeypatch):
    optuna = pytest.importorskip("optuna")
    from docs.examples import optuna_search

    config = write_config(tmp_path, devkit)
    config.write_text(config.read_text().replace("steps: 6,", "steps: 6, eval_every: 2,"))
    # At each evaluation later trials are worse.
    evaluate = iter([0.5, 0.5, 0.5, 0.4, 0.4, 0.4, 0.1, 0.1])

    class Measured:
        def __init__(self):
            self.metrics = {"AP": next(evaluate)}

    monkeypatch.setattr(sys.modules["detection.training.fit"], "evaluate_detections", lambda *_: Measured())
    study = optuna_search.main(["--config", str(config), "--trials", "3", "--output", str(tmp_path / "search")])
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "COMPLETE", "PRUNED"] and study.best_value == 0.5
    assert study.trials[2].intermediate_values == {2: 0.1, 4: 0.1}
    last = json.loads((tmp_path / "search/trial_2/metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4 and study.trials[2].state == optuna.trial.TrialState.PRUNED
