"""The sentence says where the lost AP is, for cases made by hand."""

from dataclasses import replace

import pytest
import torch

from detection.data.catalog import Dataset
from detection.evaluation.tide import Fix
from detection.report.finding import Finding, find_concentration, main_finding
from detection.report.reported import ReportedDetector, analyse
from detection.structures import Detections
from tests.report.scenes import HOSTILE_NAMES, reported, scene

NAMES = ("cat", "dog", "bird", "cow", "fox", "hen")
SIDES = {"small": 20, "medium": 60, "large": 120}


def analysed(found, names=NAMES, sizes=("small", "medium", "large"), missing=(), before=()):
    """An image for each class with an object of each size; `found(label, size)` is what is detected of it: (label, shift).

    `before`: (image, label, box) that are detected with a higher score.
    """
    records, detections = [], {}
    template = scene(num_images=1, num_objects=0)[0].records[0]
    for image, _ in enumerate(names):
        boxes = torch.tensor([[150.0 * place, 0, 150.0 * place + SIDES[size], SIDES[size]] for place, size in enumerate(sizes)])
        boxes = boxes.reshape(-1, 4)[: 0 if image in missing else None]
        flags = torch.zeros(len(boxes), dtype=torch.bool)
        labels = torch.full((len(boxes),), image)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        records.append(replace(template, image_id=image, boxes=boxes, labels=labels, difficult=flags, crowd=flags, areas=areas))
        seen = [(*each, box) for size, box in zip(sizes, boxes, strict=False) if (each := found(image, size)) is not None]
        first = [(label, torch.tensor(box, dtype=torch.float32)) for number, label, box in before if number == image]
        all_seen = first + [(label, box + shift * (box[2] - box[0])) for label, shift, box in seen]
        detections[image] = Detections(
            torch.cat([torch.zeros(0, 4), *(box[None] for _, box in all_seen)]),
            torch.tensor([0.9] * len(first) + [0.5] * len(seen)),
            torch.tensor([label for label, _ in all_seen], dtype=torch.long),
        )
    return analyse(ReportedDetector("mine", Dataset(names, records), detections, {}, {}))


def found_in(analysis) -> Finding:
    finding = find_concentration(analysis)
    assert finding is not None
    return finding


def right(label, size):
    return label, 0.0


def test_missed_small_objects_of_some_classes():
    analysis = analysed(lambda label, size: None if size == "small" and label < 3 else right(label, size))
    assert main_finding(analysis) == "100 % of the lost AP comes from missed small objects of classes 'cat', 'dog' and 'bird'."
    assert found_in(analysis).fix is Fix.MISSED


def test_missed_small_objects_of_all_classes():
    analysis = analysed(lambda label, size: None if size == "small" else right(label, size))
    assert main_finding(analysis) == "100 % of the lost AP comes from missed small objects."


def test_missed_objects_of_one_class():
    analysis = analysed(lambda label, size: None if label == 4 else right(label, size))
    assert main_finding(analysis) == "100 % of the lost AP comes from missed objects of class 'fox'."


def test_missed_objects_of_everything():
    analysis = analysed(lambda label, size: right(label, size) if label == 0 and size == "large" else None)
    assert main_finding(analysis) == "100 % of the lost AP comes from missed objects."


def test_confusion_of_two_classes():
    analysis = analysed(lambda label, size: (1, 0.0) if label == 0 and size != "large" else right(label, size))
    assert main_finding(analysis) == "100 % of the lost AP comes from confusion of 'cat' with 'dog'."
    assert found_in(analysis).confused == (0, 1)


def test_a_class_taken_for_many():
    analysis = analysed(
        lambda label, size: ({"small": 1, "medium": 2, "large": 3}[size], 0.0) if label == 0 else right(label, size)
    )
    # The dog and the bird lose by detections that are not theirs, and less.
    assert main_finding(analysis) == "83 % of the lost AP comes from confusion of 'cat', 'dog' and 'bird' with other classes."


def test_half_of_a_kind_stands_in_brackets():
    """Two of seven classes lose all three objects, each of the others its small one: eleven, seven of them of three classes."""
    analysis = analysed(lambda label, size: None if label < 2 or size == "small" else right(label, size), (*NAMES, "pig"))
    sentence = "100 % of the lost AP comes from missed objects (missed objects of classes 'cat', 'dog' and 'bird': 64 %)."
    assert main_finding(analysis) == sentence


def test_inexact_boxes_everywhere():
    analysis = analysed(lambda label, size: (label, 0.5))
    assert main_finding(analysis) == "100 % of the lost AP comes from inexact boxes."


def test_a_narrow_statement_yields_to_one_with_half_as_much_again():
    """A confusion is two steps narrower than missed objects: 2.25 times as much of these is said rather."""
    names = NAMES[:3]
    both = {0: (1, 0.0), 1: None, 2: None}
    analysis = analysed(lambda label, size: both[label] if size == "small" else right(label, size), names)
    finding = found_in(analysis)
    assert finding.fix is Fix.MISSED and finding.size == 0 and set(finding.labels) == {1, 2}


def test_inexact_boxes():
    analysis = analysed(lambda label, size: (label, 0.5 if size == "medium" else 0.0))
    assert main_finding(analysis) == "100 % of the lost AP comes from inexact boxes of medium objects."


FALSE = {
    "on background": ((0, 1, (0, 180, 100, 230)), "medium false positives of class 'dog' on background"),
    "a second one": ((1, 1, (300, 0, 420, 118)), "duplicate detections of large objects of class 'dog'"),
    "wrong and inexact": ((0, 1, (300, 0, 420, 40)), "both wrong class and inexact box in medium detections of class 'dog'"),
}


@pytest.mark.parametrize(("before", "sentence"), FALSE.values(), ids=FALSE)
def test_false_detections(before, sentence):
    again = [] if before[0] == 0 else [(1, 1, (300, 0, 420, 120))]
    analysis = analysed(right, before=[*again, before])
    assert main_finding(analysis) == f"100 % of the lost AP comes from {sentence}."


def test_one_class_is_not_named():
    analysis = analysed(lambda label, size: None, names=("cat",), sizes=("small",))
    assert main_finding(analysis) == "Nothing was detected: all AP is lost."
    analysis = analysed(lambda label, size: None if size == "small" else right(label, size), names=("cat",))
    assert main_finding(analysis) == "100 % of the lost AP comes from missed small objects."


def test_of_two_classes_all_class_errors_are_their_confusion():
    analysis = analysed(lambda label, size: (1 - label, 0.0), names=("cat", "dog"))
    assert main_finding(analysis) == "100 % of the lost AP comes from confusion of 'cat' with 'dog'."


def test_a_perfect_detector():
    assert main_finding(analysed(right)) == "No AP is lost: every object was found, and before any false positive."


def test_nothing_detected_and_nothing_to_find():
    assert main_finding(analysed(lambda label, size: None)) == "Nothing was detected: all AP is lost."
    nothing = "These images have no objects to find, so there is no AP to lose."
    assert main_finding(analysed(right, missing=range(6))) == nothing
    assert main_finding(analyse(reported(*scene(num_objects=0)))) == nothing
    assert main_finding(analyse(ReportedDetector("mine", Dataset(NAMES, []), {}, {}, {}))) == nothing


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "a\nb\x1b[31m", "x" * 200])
def test_names_are_quoted_printable_and_short(name):
    sentence = main_finding(analysed(lambda label, size: None if label == 0 else right(label, size), (name, *NAMES[1:])))
    assert sentence.startswith("100 % of the lost AP comes from missed objects of class ")
    assert sentence.isprintable() and len(sentence) < 130


@pytest.mark.parametrize("num_classes", [1, 2, 3, 30])
@pytest.mark.parametrize("seed", range(3))
def test_any_detector_has_a_sentence(seed, num_classes):
    names = tuple(map(str, range(num_classes)))
    analysis = analyse(reported(*scene(class_names=names, seed=seed)))
    finding = found_in(analysis)
    assert 1 / 36 < finding.share <= 1 + 1e-9 and f"{100 * finding.share:.0f} % of" in main_finding(analysis)


def test_a_hundred_per_cent_is_all():
    """One inexact box and 299 missed objects, each all that its class loses."""
    names = tuple(map(str, range(300)))
    analysis = analysed(lambda label, size: (label, 0.5) if label == 0 else None, names, sizes=("small",))
    assert main_finding(analysis) == "99 % of the lost AP comes from missed objects."
