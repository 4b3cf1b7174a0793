"""A score threshold for each class: a plain reading of it, and every way to predict keeps to it."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from detection import Detector, Ensemble, build_detector, load_detector
from detection.config import Config, override_config
from detection.config import TestConfig as Settings
from detection.errors import ConfigError
from detection.inference.detector import detect_in_views
from detection.inference.views import View
from detection.structures import Detections
from detection.weights.checkpoint import detector_metadata, write_checkpoint
from tests.inference.test_detector import assert_same, confident
from tests.small_detector import SMALL, detector, noise, select_one

HOSTILE = ("1e5", "yes", "a: b", "家", "[key]")


def plain_select(scores: Tensor, boxes: Tensor, test: Settings, thresholds: tuple[float, ...]) -> list[tuple[int, int]]:
    """The (region, class) of each detection: greedy NMS in a loop, over boxes that lie in the image."""
    found = []
    for label, threshold in enumerate(thresholds):
        limit = torch.tensor(threshold, dtype=torch.float32)
        kept: list[int] = []
        for row in scores[:, label].argsort(descending=True, stable=True).tolist():
            others = boxes[kept, label]
            if scores[row, label] > limit and not (box_iou(boxes[row, label][None], others) > test.nms_threshold).any():
                kept.append(row)
        found += [(row, label) for row in kept]
    return sorted(found, key=lambda place: -float(scores[place]))[: test.max_detections]


corners = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))
hundredths = st.integers(0, 100).map(lambda number: number / 100)


@given(st.lists(corners, max_size=12), st.lists(hundredths, min_size=3, max_size=3), st.integers(0, 2**31), st.integers(1, 40))
@settings(max_examples=40)
def test_equals_a_plain_loop(rectangles, thresholds, seed, max_detections):
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rectangles], dtype=torch.float32).reshape(-1, 1, 4)
    boxes = boxes.expand(-1, 3, 4)
    # Distinct scores, so that the order is one; some equal to a threshold, which they are then not above.
    numbers = torch.randperm(100, generator=torch.Generator().manual_seed(seed))[: 3 * len(boxes)]
    scores = (numbers.double() / 100).float().reshape(-1, 3)
    test = Settings(max_detections=max_detections, nms_threshold=0.29317)  # which is the IoU of no two of these boxes
    found = select_one(scores, boxes, (50, 50), test, torch.tensor(thresholds))
    expected = plain_select(scores, boxes, test, tuple(thresholds))
    assert list(zip(found.boxes.tolist(), found.labels.tolist(), strict=True)) == [
        (boxes[row, label].tolist(), label) for row, label in expected
    ]
    alike = select_one(scores, boxes, (50, 50), test, torch.full((3,), thresholds[0]))
    one = select_one(scores, boxes, (50, 50), test, thresholds[0])
    assert (
        torch.equal(alike.boxes, one.boxes) and torch.equal(alike.scores, one.scores) and torch.equal(alike.labels, one.labels)
    )


def test_voters_above_the_threshold_are_above_that_of_their_class():
    test = Settings(voting=True, voting_candidates="above_threshold", nms_threshold=0.5)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]])[:, None].expand(2, 2, 4)
    scores = torch.tensor([[0.9, 0.9], [0.3, 0.3]])
    found = select_one(scores, boxes, (20, 20), test, torch.tensor([0.2, 0.5]))
    assert sorted(found.labels.tolist()) == [0, 1]
    torch.testing.assert_close(found.boxes[found.labels == 0], torch.tensor([[0.0, 0, 10, 9.5]]))
    assert found.boxes[found.labels == 1].tolist() == [[0, 0, 10, 10]]


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "refinement and voting": {"refinement_passes": 1, "voting": True},
    "scales": {"scales": [48, 64], "scale_area": 24},
    "flip": {"flip": True},
    "tiles and voting": {"tile": 48, "voting": True, "tile_whole": False},
}


def with_threshold(model: Detector, setting: Any) -> Detector:
    model.use_test_config(model.config.test.model_copy(update={"score_threshold": setting}))
    return model


def middling(found: Detections, num_classes: int = 2) -> dict[str, float]:
    """A threshold for each class that some of its detections pass, and others do not."""
    names = ("cat", "dog")
    return {names[label]: float(found.scores[found.labels == label].median()) for label in range(num_classes)}


@pytest.mark.parametrize(("way", "ensemble"), [*((way, False) for way in WAYS), ("refinement and voting", True)])
def test_every_way_to_predict_keeps_to_them(way, ensemble):
    model = confident(test={**WAYS[way], "max_detections": 1000, "nms_threshold": 0.3}).eval()
    predictor = Ensemble([model, confident(seed=1).eval()]) if ensemble else model
    image = noise(60, 80)
    every = predictor.predict(image)[0]
    thresholds = middling(every)
    assert thresholds["cat"] != thresholds["dog"]
    with_threshold(model, thresholds)
    found = predictor.predict(image)[0]
    limits = torch.tensor([thresholds[name] for name in ("cat", "dog")])
    assert set(found.names) == {"cat", "dog"} and (found.scores > limits[found.labels]).all()
    if "tile" not in WAYS[way]:  # where a low whole box may explain a part, which stays without it
        # What is below a threshold suppresses nothing above it, so the others are the same.
        assert_same(found, every[every.scores > limits[every.labels]], exactly=True)


def test_thresholds_that_are_alike_are_one_number():
    model, images = confident(test={"refinement_passes": 1, "voting": True}).eval(), [noise(64, 80), noise(60, 60)]
    expected = with_threshold(model, 0.3).predict(images)
    assert model.score_threshold == 0.3 and not [name for name, _ in model.named_buffers() if "threshold" in name]
    alike = with_threshold(model, {"cat": 0.3, "dog": 0.3}).predict(images)
    for found, before in zip(alike, expected, strict=True):
        assert_same(found, before, exactly=True)


def test_a_class_that_is_left_out_has_the_default():
    model = detector(test={"score_threshold": {"dog": 0.7}})
    assert isinstance(model.score_threshold, Tensor) and model.score_threshold.dtype == torch.float32
    assert model.score_threshold.tolist() == torch.tensor([0.05, 0.7]).tolist()
    assert isinstance(with_threshold(model, {}).score_threshold, Tensor)
    assert with_threshold(model, 0.2).score_threshold == 0.2


def test_a_view_with_other_settings_has_their_thresholds():
    model, image = confident().eval(), noise(64, 80).permute(1, 2, 0).numpy()
    view = View(model, [image])
    other = view.with_settings(model.config.test.model_copy(update={"score_threshold": {"cat": 1.0, "dog": 0.0}}))
    with torch.inference_mode():
        assert set(detect_in_views([other])[0].labels.tolist()) == {1}
        assert set(detect_in_views([view])[0].labels.tolist()) == {0, 1}


def test_thresholds_are_no_weights_and_go_where_the_weights_go():
    model = detector(test={"score_threshold": {"dog": 0.7}})
    assert model.state_dict().keys() == detector().state_dict().keys()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(torch.as_tensor(copied.score_threshold), torch.as_tensor(model.score_threshold))
    moved = model.to("meta").score_threshold
    assert isinstance(moved, Tensor) and moved.device.type == "meta"


def test_names_that_are_no_class_are_refused_before_anything_is_built():
    config = Config.model_validate(SMALL)
    wrong = config.model_copy(update={"test": config.test.model_copy(update={"score_threshold": {"cta": 0.4}})})
    with pytest.raises(ConfigError, match="test.score_threshold names 'cta', which is no class; did you mean 'cat'"):
        build_detector(wrong)
    model = build_detector(config)
    with pytest.raises(ConfigError, match="names 'cta'"):
        model.use_test_config(wrong.test)
    assert model.config == config


def test_a_checkpoint_keeps_them_whatever_the_classes_are_called(tmp_path):
    thresholds = {name: (number + 1) / 10 for number, name in enumerate(HOSTILE)}
    model = detector(data={"classes": list(HOSTILE)}, test={"score_threshold": thresholds})
    write_checkpoint(detector_metadata(model), model.state_dict(), tmp_path / "a.pt")
    again = load_detector(tmp_path / "a.pt")
    assert again.config == model.config and torch.equal(torch.as_tensor(again.score_threshold), torch.arange(1, 6) / 10)
    changed = load_detector(tmp_path / "a.pt", lambda own: override_config(own, ["test.score_threshold={'a: b': 0.75}"]))
    assert torch.as_tensor(changed.score_threshold).tolist() == torch.tensor([0.05, 0.05, 0.75, 0.05, 0.05]).tolist()
    with pytest.raises(ConfigError, match="names '1e6', which is no class; did you mean '1e5'"):
        load_detector(tmp_path / "a.pt", lambda own: override_config(own, ["test.score_threshold={'1e6': 0.75}"]))
