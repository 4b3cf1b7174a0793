"""The schema itself: frozen sections, and the checks that span several keys."""

import pytest
from pydantic import ValidationError

from detection.config import Config, TrainConfig
from detection.config import TestConfig as InferenceConfig


def test_frozen():
    with pytest.raises(ValidationError):
        Config().rpn.channels = 3  # type: ignore[misc]  # which mypy refuses as well


def test_the_plateau_schedule_needs_evaluations():
    with pytest.raises(ValidationError, match=r"set train\.eval_every"):
        TrainConfig(schedule="plateau")
    assert TrainConfig(schedule="plateau", eval_every=10).plateau_patience == 1


def test_scales_ascend():
    with pytest.raises(ValidationError, match=r"write \[200, 600\]"):
        InferenceConfig(scales=(600, 200))
