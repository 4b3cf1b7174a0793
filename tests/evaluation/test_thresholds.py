"""A threshold gives exactly the precision and recall that are said of it, and the file of them the names that were given."""

import numpy as np
import pytest
import torch
import yaml

from detection.config.yaml_text import parse_yaml
from detection.evaluation.matches import match
from detection.evaluation.thresholds import (
    NO_THRESHOLD,
    Operation,
    Thresholds,
    best_f1,
    best_thresholds,
    class_curves,
    overall_curve,
    threshold_curve,
    threshold_for_precision,
    thresholds_for_precision,
    thresholds_text,
    write_thresholds,
)
from tests.evaluation.matched import plain_curve
from tests.report.scenes import HOSTILE_NAMES, scene

# By hand, of five objects: above .85 one is found of one, above .7 2 of 2, above .5 3 of 4, above .3 4 of 8.
SCORES = np.array([0.9, 0.8, 0.6, 0.6, 0.4, 0.4, 0.4, 0.4])
TRUE = np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)


def counted(curve):
    return list(zip(curve.num_true.tolist(), curve.num_detections.tolist(), strict=True))


def above(scores, threshold):
    """The detections that `test.score_threshold` would keep: compared as float32, whatever the numbers' type here."""
    return scores.astype(np.float32) > np.float32(threshold)


def hard_scores(kind: str, random: np.random.Generator) -> np.ndarray:
    """Float32 scores that make thresholds difficult: ties, neighbours without a number between, ends of the range."""
    if kind == "ties":
        return np.round(random.random(200), 1).astype(np.float32)
    if kind == "neighbours":
        start = np.float32(random.random())
        return (start.view(np.int32) + random.integers(0, 6, 60).astype(np.int32)).view(np.float32)
    if kind == "ends":
        return random.choice(np.array([0, 1e-45, 1e-30, 1e-6, 5e-4, 1 - 2**-24, 1], dtype=np.float32), 50)
    return random.random(200).astype(np.float32)


def test_counts_by_hand():
    curve = threshold_curve(SCORES, TRUE, 5)
    assert curve.thresholds.tolist() == [0.399, 0.5, 0.7, 0.85]
    assert counted(curve) == [(4, 8), (3, 4), (2, 2), (1, 1)]
    assert curve.precision.tolist() == [0.5, 0.75, 1, 1] and curve.recall.tolist() == [0.8, 0.6, 0.4, 0.2]
    np.testing.assert_allclose(curve.f1, [8 / 13, 6 / 9, 4 / 7, 2 / 6])


def test_choices_by_hand():
    curve = threshold_curve(SCORES, TRUE, 5)
    assert best_f1(curve) == Operation(0.5, 3, 4, 5)
    chosen = [threshold_for_precision(curve, wanted) for wanted in (0.1, 0.5, 0.51, 0.75, 0.9, 1)]
    assert [each and each.threshold for each in chosen] == [
        0.399,
        0.399,
        0.5,
        0.5,
        0.7,
        0.7,
    ]
    assert threshold_for_precision(threshold_curve(SCORES, ~TRUE, 5), 0.9) is None


@pytest.mark.parametrize("kind", ["any", "ties", "neighbours", "ends"])
@pytest.mark.parametrize("seed", range(8))
def test_detections_above_a_threshold_are_those_that_were_counted(kind, seed):
    random = np.random.default_rng(seed)
    scores = np.sort(hard_scores(kind, random))[::-1].astype(np.float64)
    true = random.random(len(scores)) < 0.5
    curve = threshold_curve(scores, true, 300)
    for point, threshold in enumerate(curve.thresholds):
        in_torch = (torch.tensor(scores, dtype=torch.float32) > float(threshold)).numpy()
        for kept in (above(scores, threshold), in_torch, scores > threshold):
            assert (true[kept].sum(), kept.sum()) == counted(curve)[point]
    assert ((curve.thresholds >= 0) & (curve.thresholds <= 1)).all() and (np.diff(curve.thresholds) > 0).all()
    # No set of detections that a threshold can choose is left out.
    assert len(curve) == len(set(scores[scores > 0]))


def test_a_threshold_has_few_digits_and_keeps_its_distance_where_scores_leave_it():
    scores = np.array([0.8, 0.61, 0.3100001, 0.3, 0.2999])
    thresholds = threshold_curve(scores, np.ones(5, dtype=bool), 5).thresholds
    assert thresholds.tolist() == [0.299, 0.29995, 0.305, 0.46, 0.7]


@pytest.mark.parametrize("seed", range(6))
def test_reported_numbers_are_those_of_a_plain_recount(seed):
    dataset, found = scene(num_images=10, seed=seed)
    matches = match(dataset.records, found, dataset.class_names)
    row = matches.at(0.5)
    table, ignored, true = matches.detections, matches.ignored(row), matches.true_positives(row)
    curves = [*enumerate(class_curves(matches)), (None, overall_curve(matches))]
    for label, curve in curves:
        chosen = ~ignored & ((table.labels == label) if label is not None else True)
        objects = ~matches.objects.ignored & ((matches.objects.labels == label) if label is not None else True)
        for operation in map(curve.at, range(len(curve))):
            kept = chosen & above(table.scores, operation.threshold)
            precision, recall = true[kept].sum() / kept.sum(), true[kept].sum() / objects.sum()
            assert (operation.precision, operation.recall) == (precision, recall)
            f1 = 2 * precision * recall / (precision + recall) if precision else 0
            np.testing.assert_allclose(operation.f1, f1)


@pytest.mark.parametrize("seed", range(6))
def test_choices_are_the_best_of_all_points_of_the_scored_curve(seed):
    dataset, found = scene(num_images=10, seed=seed)
    matches = match(dataset.records, found, dataset.class_names)
    for label, curve in enumerate(class_curves(matches)):
        plain = plain_curve(matches, label, matches.at(0.5))
        ends = np.append(np.diff(plain.scores) < 0, True)
        precision, recall = plain.precision[ends], plain.recall[ends]
        with np.errstate(invalid="ignore"):
            f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
        best = best_f1(curve)
        assert best is not None
        np.testing.assert_allclose(best.f1, f1.max())
        for wanted in (0.3, 0.5, 0.8, 0.99):
            reached = recall[precision >= wanted]
            operation = threshold_for_precision(curve, wanted)
            assert (operation is None) == (len(reached) == 0)
            assert operation is None or operation.recall == reached.max()


def test_a_class_without_objects_or_detections_has_no_best_threshold():
    dataset, found = scene(num_images=4)
    matches = match(dataset.records, found, (*dataset.class_names, "unseen"))
    assert best_f1(class_curves(matches)[3]) is None and len(class_curves(matches)[3]) == 0
    nothing = match(dataset.records, {}, dataset.class_names)
    assert best_f1(overall_curve(nothing)) is None and threshold_for_precision(overall_curve(nothing), 0.5) is None
    empty, found = scene(num_images=4, num_objects=0)
    assert best_f1(overall_curve(match(empty.records, found, empty.class_names))) is None


def chosen(names, values, overall=None) -> Thresholds:
    operations = [None if value is None else Operation(value, 1, 2, 3) for value in (*values, overall)]
    return Thresholds(tuple(names), operations[:-1], operations[-1], "best F1")


NAMES = (
    *HOSTILE_NAMES, "yes", "1e5", "null", "a: b", "- x", "#", "~", "'", "\\", "猫", "👍🏽", "ب", "می\u200cخواهم", " a ",
    "x" * 200, "?" * 200,
)  # fmt: skip


def test_the_file_gives_back_names_as_text_and_numbers_as_numbers(tmp_path):
    file = tmp_path / "thresholds.yaml"
    values = [1.0, 0.0, 1e-7, 0.12345678955316544, 0.25, *([0.5] * (len(NAMES) - 5))]
    write_thresholds(file, chosen(NAMES, values), "runs/a\nb: [")
    expected = dict(zip(NAMES, values, strict=True))
    text = file.read_text(encoding="utf-8")
    assert yaml.safe_load(text) == expected and parse_yaml(text, "file") == expected
    assert '"猫": 0.5' in text and "best F1 at IoU 0.5" in text.splitlines()[0]


def test_characters_that_yaml_does_not_take_are_escaped():
    names = tuple(f"a{character}b" for character in '\x00\x1b\x7f\x85\u2028\u2029\ufeff\ufffe\t\n"\\')
    assert tuple(yaml.safe_load(thresholds_text(chosen(names, [0.5] * len(names)), "run"))) == names


@pytest.mark.parametrize(("overall", "expected"), [(0.3, 0.3), (None, NO_THRESHOLD)])
def test_a_class_without_a_threshold_gets_the_common_one(overall, expected):
    text = thresholds_text(chosen(("cat", "dog"), [0.7, None], overall), "run")
    assert yaml.safe_load(text) == {"cat": 0.7, "dog": expected}
    assert f"1 class has none of its own and the common one, {expected}" in text
    assert yaml.safe_load(thresholds_text(chosen((), ()), "run")) == {}


def test_thresholds_of_all_classes_by_either_rule():
    dataset, found = scene(num_images=10)
    matches = match(dataset.records, found, (*dataset.class_names, "unseen"))
    best, wanted = best_thresholds(matches), thresholds_for_precision(matches, 0.3)
    assert best.classes == [*map(best_f1, class_curves(matches)[:3]), None]
    assert best.overall is not None and best.numbers[3] == best.overall.threshold and best.rule == "best F1"
    assert wanted.classes[0] == threshold_for_precision(class_curves(matches)[0], 0.3) and wanted.rule == "precision >= 0.3"


@pytest.mark.parametrize("scale", [1e5, 1e9, 1e300, -1e5, -1e300, 1e-30])
def test_scores_of_any_size_have_thresholds_with_the_counts_that_they_say(scale):
    """Other programs' scores may be any finite numbers; float32 has neither three decimals of them all nor the greatest."""
    scores = np.sort(np.array([0.9, 0.5, 0.5, 0.31, 0.3]) * scale)[::-1]
    true = np.array([True, False, True, False, True])
    curve = threshold_curve(scores, true, 4)
    assert len(curve) == len(np.unique(scores.clip(-3e38, 3e38))) and np.isfinite(curve.thresholds).all()
    for point in range(len(curve)):
        kept = scores.clip(-3e38, 3e38).astype(np.float32) > np.float32(curve.thresholds[point])
        assert (kept.sum(), true[kept].sum()) == (curve.num_detections[point], curve.num_true[point])
