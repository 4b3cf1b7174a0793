"""Tables of evaluations."""

from rich.console import Console

from detection.analysis.tables import coco_table, voc_table
from detection.evaluation.coco import evaluate_coco_records
from detection.evaluation.voc import evaluate_voc
from tests.evaluation.scenes import jittered, random_scene

NAMES = ["cat", "dog", "cow"]


def text_of(table) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_tables_name_the_metric_and_the_classes():
    records, _ = random_scene(1)
    detections = jittered(records, 1, 3)
    shown = text_of(voc_table(evaluate_voc(records, detections, NAMES, metric="voc07")))
    assert "VOC07 11-point" in shown and "cat" in shown and "mean" in shown
    result = evaluate_coco_records(records, detections, NAMES)
    shown = text_of(coco_table(result.numbers, result.class_ap))
    assert "AR100" in shown and "AP of dog" in shown and "-1" not in shown
