"""The metrics by their keys: one key each, in a run's log, an evaluation's result and the JSON files that commands write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricInfo:
    """What people read of a metric, and which end of its range is the good one."""

    title: str
    higher_is_better: bool = True


METRICS = {
    # COCO's twelve numbers, in [0, 1]; -1 where there is nothing to measure them on.
    "AP": MetricInfo("COCO AP@[.5,.95]"),
    "AP50": MetricInfo("COCO AP50"),
    "AP75": MetricInfo("COCO AP75"),
    "APs": MetricInfo("COCO AP, small objects"),
    "APm": MetricInfo("COCO AP, medium objects"),
    "APl": MetricInfo("COCO AP, large objects"),
    "AR1": MetricInfo("COCO AR, 1 detection per image"),
    "AR10": MetricInfo("COCO AR, 10 detections per image"),
    "AR100": MetricInfo("COCO AR, 100 detections per image"),
    "ARs": MetricInfo("COCO AR, small objects"),
    "ARm": MetricInfo("COCO AR, medium objects"),
    "ARl": MetricInfo("COCO AR, large objects"),
    # The same, where test.max_detections is above 100, with as many detections per image as that.
    "APcap": MetricInfo("COCO AP, test.max_detections per image"),
    "ARcap": MetricInfo("COCO AR, test.max_detections per image"),
    # The twelve with the IoU of masks, where detector and data have masks.
    "mask_AP": MetricInfo("COCO mask AP@[.5,.95]"),
    "mask_AP50": MetricInfo("COCO mask AP50"),
    "mask_AP75": MetricInfo("COCO mask AP75"),
    "mask_APs": MetricInfo("COCO mask AP, small objects"),
    "mask_APm": MetricInfo("COCO mask AP, medium objects"),
    "mask_APl": MetricInfo("COCO mask AP, large objects"),
    "mask_AR1": MetricInfo("COCO mask AR, 1 detection per image"),
    "mask_AR10": MetricInfo("COCO mask AR, 10 detections per image"),
    "mask_AR100": MetricInfo("COCO mask AR, 100 detections per image"),
    "mask_ARs": MetricInfo("COCO mask AR, small objects"),
    "mask_ARm": MetricInfo("COCO mask AR, medium objects"),
    "mask_ARl": MetricInfo("COCO mask AR, large objects"),
    # Pascal VOC's mean over the classes at IoU 0.5, in [0, 1]; NaN where no class has objects. See VocMetric.
    "voc_area": MetricInfo("VOC mAP@.5, area"),
    "voc07": MetricInfo("VOC mAP@.5, 11-point"),
    # The same with the IoU of masks, AP^r, as the area under the curve, where detector and data have masks.
    "mask_voc50": MetricInfo("VOC mask AP^r@.5"),
    "mask_voc70": MetricInfo("VOC mask AP^r@.7"),
    # A classifier's, as fractions of the images.
    "top1_error": MetricInfo("top-1 error", higher_is_better=False),
    "top5_error": MetricInfo("top-5 error", higher_is_better=False),
    # ImageNet localisation's, as fractions of the images; NaN without an image to measure them on.
    "gt_class_error": MetricInfo("GT-class localisation error", higher_is_better=False),
    "localisation_error": MetricInfo("top-5 localisation error", higher_is_better=False),
    "classification_error": MetricInfo("top-5 classification error", higher_is_better=False),
}

RESAMPLED_METRICS = ("AP", "AP50", "AP75", "voc_area", "voc07")
"""Those that are measured on resampled images, to compare detectors."""

VocMetric = Literal["voc07", "area"]
"""How Pascal VOC computes AP at any IoU threshold: at eleven recalls until 2009, as the area under the curve since 2010."""

VOC_METRIC_TITLES: dict[VocMetric, str] = {"voc07": "VOC07 11-point", "area": "VOC10+ area under the curve"}

IouType = Literal["boxes", "masks"]
"""What of an object and a detection is compared in COCO's metric."""
