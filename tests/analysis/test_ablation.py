"""The table of improvements: shared rows equal rows computed by themselves, nothing is computed twice, each row is timed."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detection import Detector, Ensemble
from detection.analysis.ablation import (
    PAPER_SCALES,
    AblationPlan,
    AblationRow,
    multi_scale_settings,
    plan_rows,
    predict_rows,
    refinement_settings,
    time_rows,
)
from detection.config import TestConfig as Settings
from detection.errors import ConfigError
from detection.inference.dataset import predict_dataset
from detection.structures import Detections, Record
from tests.evaluation.scenes import make_record
from tests.small_detector import detector, noise

NAMES = ["baseline", "+ box refinement", "+ context", "+ multi-scale testing", "+ ensemble", "+ flip, one network"]


def network(context: bool, seed: int, min_size: float = 4, **test: Any) -> Detector:
    torch.manual_seed(seed)
    settings: dict[str, dict[str, Any]] = {
        "roi": {"context": context},
        "rpn": {"min_size": min_size},
        "test": {"scale_area": 24, **test},
    }
    model = detector(**settings, train={"precision": "fp32"}).eval()
    torch.nn.init.normal_(model.roi_head.class_scores.weight, std=0.05)
    return model


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Three images of two shapes."""
    found = []
    for number, (height, width) in enumerate([(64, 80), (70, 50), (64, 80)]):
        file = tmp_path / f"{number}.png"
        cv2.imwrite(str(file), noise(height, width).permute(1, 2, 0).numpy())
        blank = make_record(number)
        fields = {name: getattr(blank, name) for name in ("boxes", "labels", "difficult", "crowd", "areas")}
        found.append(Record(number, file, (height, width), **fields))
    return found


def predict_by_itself(detectors: list[Detector], row: AblationRow, records: list[Record]) -> dict[object, Detections]:
    """The row as anybody would compute it: detectors with its settings, from the first pixel on."""
    settings = [each.config.test for each in detectors]
    try:
        for member in row.members:
            test = member.test.model_copy(update={"flip": row.flip})
            detectors[member.index].use_test_config(test)
        models = [detectors[member.index] for member in row.members]
        return predict_dataset(models[0] if len(models) == 1 else Ensemble(models), records, workers=0)
    finally:
        for each, test in zip(detectors, settings, strict=True):
            each.use_test_config(test)


def test_shared_rows_equal_rows_computed_by_themselves(records):
    settings: dict[str, Any] = {"scales": (48, 96), "flip": True, "voting_iou": 0.6}
    detectors = [network(True, 0, **settings), network(False, 1, **settings), network(True, 2, shorter_side=80, **settings)]
    plan = plan_rows(detectors)
    assert [row.name for row in plan.rows] == NAMES and plan.left_out == ()
    assert [[member.index for member in row.members] for row in plan.rows] == [[1], [1], [0], [0], [0, 2], [0]]
    assert len(plan.rows_and_members) == 7  # the rows, and the ensemble's second member; its first is a row already
    reported: list[int] = []
    found = predict_rows(detectors, plan.rows_and_members, records, workers=0, report=reported.append)
    assert reported == [1, 2, 3]
    for row in plan.rows_and_members:
        for image_id, expected in predict_by_itself(detectors, row, records).items():
            assert len(found[row][image_id]) == len(expected) > 0
            for name in ("boxes", "scores", "labels"):
                assert torch.equal(getattr(found[row][image_id], name), getattr(expected, name)), (row.name, name)
    assert not torch.equal(found[plan.rows[0]][0].boxes, found[plan.rows[1]][0].boxes)


def shape_of(features: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[int, ...]:
    return tuple((features if isinstance(features, torch.Tensor) else features[0]).shape)


def test_feature_maps_proposals_and_context_are_computed_once_an_image(records):
    settings: dict[str, Any] = {"scales": (48, 64, 96), "flip": True}
    detectors = [network(False, 0, **settings), network(True, 1, **settings), network(True, 2, **settings)]
    watched = detectors[1]
    seen: dict[str, list[tuple[int, ...]]] = {"trunk": [], "rpn": [], "roi_head.conv5": []}
    for name, shapes in seen.items():
        module = watched.get_submodule(name)
        module.register_forward_pre_hook(lambda _, inputs, shapes=shapes: shapes.append(shape_of(inputs[0])))
    predict_rows(detectors, plan_rows(detectors).rows_and_members, records[:1], workers=0)
    once = [(48, 60), (64, 80), (96, 120)]
    # As it is and mirrored, at each size; proposals come from the image as it is.
    assert sorted(shape[2:] for shape in seen["trunk"]) == sorted(once * 2) and len(seen["rpn"]) == 1
    # The whole image as one RoI: at the single scale, at the scales, mirrored at the scales.
    assert sum(len_rois == 1 for len_rois, *_ in seen["roi_head.conv5"]) == 3


def test_rows_that_the_detectors_do_not_allow():
    assert plan_rows([network(False, 0)]).left_out == (
        "+ context: no checkpoint was trained with roi.context=true",
        "+ ensemble: there is only one checkpoint without context",
    )
    without = plan_rows([network(False, 0), network(False, 1)])
    assert [row.name for row in without.rows] == ["baseline", "+ box refinement", "+ multi-scale testing", "+ ensemble"]
    assert [len(row.members) for row in without.rows] == [1, 1, 1, 2]
    mixed = plan_rows([network(True, 0), network(False, 1), network(False, 2)])
    assert [row.name for row in mixed.rows] == NAMES[:4]
    assert mixed.left_out == ("+ ensemble: there is only one checkpoint with context",)
    with pytest.raises(ConfigError, match="the baseline needs a checkpoint trained without context, and all 2 given"):
        plan_rows([network(True, 0), network(True, 1)])


def test_settings_of_the_rows():
    plain = Settings(refinement_passes=3, voting=True, scales=(100, 200), flip=True, nms_threshold=0.5)
    rows = plan_rows([network(False, 0, **plain.model_dump())]).rows
    first, second, third = (row.members[0].test for row in rows[:3])
    assert first == Settings(nms_threshold=0.5)
    assert second == Settings(nms_threshold=0.5, refinement_passes=3, voting=True)
    assert third == Settings(nms_threshold=0.5, refinement_passes=3, voting=True, scales=(100, 200))
    assert refinement_settings(Settings()) == Settings(refinement_passes=1, voting=True)
    assert multi_scale_settings(Settings()).scales == PAPER_SCALES
    assert multi_scale_settings(Settings(shorter_side=480)).scales == (160, 320, 480, 640, 800)
    assert multi_scale_settings(Settings(shorter_side=1)).scales == (1, 2)


def test_each_row_has_the_median_of_its_own_seconds(records):
    detectors = [network(False, 0, scales=(64,))]
    rows = plan_rows(detectors).rows
    # Three rows on three images of two shapes; the first of a shape is run untimed before.
    durations = [9, 9, 9, 1, 10, 100, 9, 9, 9, 3, 30, 300, 2, 20, 200]
    ticks = iter(np.cumsum([step for duration in durations for step in (0.5, duration)]))
    runs: list[int] = []
    detectors[0].rpn.register_forward_pre_hook(lambda *_: runs.append(1))
    reported: list[int] = []
    seconds = time_rows(detectors, rows, records, report=reported.append, clock=lambda: float(next(ticks)))
    assert [seconds[row] for row in rows] == [2, 20, 200]
    assert reported == [1, 2, 3] and len(runs) == 15  # nothing is shared


def test_an_image_without_proposals_and_one_smaller_than_the_stride(tmp_path):
    file = tmp_path / "tiny.png"
    cv2.imwrite(str(file), noise(5, 7).permute(1, 2, 0).numpy())
    blank = make_record("tiny")
    record = Record("tiny", file, (5, 7), blank.boxes, blank.labels, blank.difficult, blank.crowd, blank.areas)
    detectors = [network(False, 0, min_size=1e4), network(True, 1, min_size=1e4), network(True, 2, min_size=1e4)]
    plan: AblationPlan = plan_rows(detectors)
    found = predict_rows(detectors, plan.rows_and_members, [record], workers=0)
    assert all(len(each["tiny"]) == 0 for each in found.values())
