"""The one table of metrics: whatever is measured anywhere has its key there."""

from detection.evaluation.coco import CAPPED_METRICS, COCO_METRICS
from detection.evaluation.metrics import METRICS
from detection.evaluation.predicted_masks import MASK_METRICS
from detection.evaluation.voc_masks import VOC_MASK_IOUS

ERRORS = {"top1_error", "top5_error", "gt_class_error", "localisation_error", "classification_error"}


def test_every_metric_has_its_key_and_a_title_of_its_own() -> None:
    assert set(METRICS) == {*COCO_METRICS, *CAPPED_METRICS, *MASK_METRICS, *VOC_MASK_IOUS, "voc_area", "voc07", *ERRORS}
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


def test_errors_alone_are_better_when_lower() -> None:
    assert {key for key, metric in METRICS.items() if not metric.higher_is_better} == ERRORS
