"""Settings that are allowed and seldom meant."""

import re

import pytest

from backbones import build_backbone
from detection.config import Config, ModelConfig, TrainConfig
from detection.config.localiser import LocModelConfig
from detection.engine.advice import advise_frozen, advise_layer_rates, advise_resumed, advise_schedule, advise_tiles


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"warmup_steps": 10}, r"the warm-up \(10 steps\) is not over before the run is \(10\)"),
        ({"lr_drops": [5, 10, 20]}, r"lr_drops at \[10, 20\] come after the last of 10 steps"),
        ({"lr_drops": [5], "schedule": "cosine"}, "no effect: train.schedule is 'cosine'"),
        ({"schedule": "plateau", "eval_every": 10}, "'plateau' schedule never lowers the learning rate"),
        ({"ema_decay": 0.99}, "averages over more steps"),
        ({"optimizer": "adamw", "momentum": 0.8, "learning_rate": 1e-4}, "momentum 0.8 has no effect"),
        ({"optimizer": "adamw", "learning_rate": 0.02}, "learning_rate 0.02 is high for 'adamw'"),
    ],
)
def test_what_will_not_happen_is_one_sentence(settings, words):
    (sentence,) = advise_schedule(TrainConfig(steps=10, **settings), evaluated=True)
    assert re.search(words, sentence) and "\n" not in sentence


def test_an_ordinary_schedule_needs_no_advice():
    for settings in ({}, {"lr_drops": (5, 9), "warmup_steps": 9, "ema_decay": 0.8}, {"schedule": "plateau", "eval_every": 5}):
        assert advise_schedule(TrainConfig(steps=10, **settings), evaluated=True) == []
    plateau = TrainConfig(steps=10, schedule="plateau", eval_every=5)
    assert "give data.val" in advise_schedule(plateau, evaluated=False)[0]


def test_random_weights_in_frozen_stages():
    assert "keep random weights" in advise_frozen(ModelConfig(norm="bn"))[0]
    assert advise_frozen(ModelConfig(norm="bn", freeze_stages=0)) == []
    assert advise_frozen(ModelConfig(weights="model.pt")) == []


def test_statistics_that_were_never_measured():
    (sentence,) = advise_frozen(LocModelConfig())
    assert "model.norm is frozen_bn and model.weights is null" in sentence
    assert advise_frozen(LocModelConfig(weights="model.pt")) == advise_frozen(LocModelConfig(norm="bn")) == []
    assert len(advise_frozen(ModelConfig())) == 2


def test_a_resume_that_changes_the_schedule():
    before = TrainConfig(steps=10, schedule="cosine").model_dump(mode="json")
    assert "was 10 and is 20 now: the cosine schedule" in advise_resumed(before, TrainConfig(steps=20, schedule="cosine"))[0]
    assert advise_resumed(before, TrainConfig(steps=10, schedule="cosine")) == []
    assert advise_resumed(before, TrainConfig(steps=20)) == []
    plateau = TrainConfig(steps=10, schedule="plateau", eval_every=2)
    assert "was 5 and is 2 now" in advise_resumed({"steps": 10, "eval_every": 5}, plateau)[0]


def test_rates_of_layers_that_change_nothing():
    slow, plain = TrainConfig(layer_decay=0.5), TrainConfig()
    frozen, trained = build_backbone("cifar_resnet8", freeze_stages=4), build_backbone("cifar_resnet8", freeze_stages=1)
    assert "nothing of the backbone is trained" in advise_layer_rates(frozen, slow)[0]
    assert advise_layer_rates(frozen, plain) == advise_layer_rates(trained, slow) == []
    trained.stage_parts = ()
    assert "does not tell its stages" in advise_layer_rates(trained, slow)[0]


def test_tiles_in_training_alone():
    assert "set test.tile=800" in advise_tiles(Config.model_validate({"data": {"tile": 800}}))[0]
    for tiles in ({}, {"data": {"tile": 800}, "test": {"tile": 640}}, {"test": {"tile": 640}}):
        assert advise_tiles(Config.model_validate(tiles)) == []
