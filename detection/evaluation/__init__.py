"""From ground truth and detections to numbers: Pascal VOC's and COCO's."""

from detection.evaluation.coco import evaluate_coco, evaluate_coco_files
from detection.evaluation.voc import evaluate_voc
from detection.evaluation.voc_files import evaluate_voc_files

__all__ = ["evaluate_coco", "evaluate_coco_files", "evaluate_voc", "evaluate_voc_files"]
