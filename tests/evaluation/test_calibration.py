"""Reliability: hand-computed bins, and agreement with a plain loop."""

import numpy as np
import pytest

from detection.evaluation.calibration import (
    LEAST_SCORE,
    NUM_BINS,
    class_reliabilities,
    overall_reliability,
    reliability,
)
from detection.evaluation.matches import match
from tests.report.scenes import scene


def plain_error(scores, true, num_bins=NUM_BINS) -> tuple[float, float]:
    """ECE and the greatest gap, by a loop over the bins, whose lower edges a score reaches in float32."""
    error, greatest = 0.0, 0.0
    edges = [np.float32(edge / num_bins) for edge in range(1, num_bins)]
    bins = [sum(np.float32(score) >= edge for edge in edges) for score in scores.tolist()]
    for number in range(num_bins):
        inside = [place for place, bin_ in enumerate(bins) if bin_ == number]
        if inside:
            gap = abs(np.mean([scores[place] for place in inside]) - np.mean([true[place] for place in inside]))
            error += gap * len(inside) / len(scores)
            greatest = max(greatest, gap)
    return error, greatest


def test_bins_by_hand():
    scores = np.array([0.0, 0.25, 0.25, 0.75, 1.0, 1.0])
    true = np.array([0, 1, 0, 0, 1, 1], dtype=bool)
    found = reliability(scores, true, num_bins=4)
    assert found.counts.tolist() == [1, 2, 0, 3]
    np.testing.assert_allclose(found.mean_scores, [0, 0.25, np.nan, 2.75 / 3])
    np.testing.assert_allclose(found.precision, [0, 0.5, np.nan, 2 / 3])
    np.testing.assert_allclose(found.error, (2 * 0.25 + 3 * 0.25) / 6)
    np.testing.assert_allclose(found.bias, (3.25 - 3) / 6)
    assert found.worst_bin in (1, 3)


def test_scores_that_are_right_have_no_error_beyond_that_of_sampling():
    random = np.random.default_rng(0)
    scores = random.random(100_000)
    true = random.random(len(scores)) < scores
    found = reliability(scores, true)
    np.testing.assert_allclose(found.error, plain_error(scores, true)[0], rtol=1e-9)
    # A bin's precision has a standard deviation of at most 0.5 / sqrt(10,000).
    assert found.error < 0.005
    assert abs(found.bias) < 0.005


@pytest.mark.parametrize("offset", [-0.2, 0.1])
def test_a_bias_is_found_with_its_sign(offset):
    random = np.random.default_rng(1)
    chances = random.uniform(0.25, 0.85, 100_000)
    found = reliability(chances + offset, random.random(len(chances)) < chances)
    np.testing.assert_allclose([found.bias, found.error], [offset, abs(offset)], atol=0.005)


@pytest.mark.parametrize("seed", range(4))
def test_classes_agree_with_a_plain_loop(seed):
    dataset, detections = scene(num_images=10, seed=seed)
    matches = match(dataset.records, detections, dataset.class_names)
    row = matches.at(0.5)
    table, true = matches.detections, matches.true_positives(row)
    counted = ~matches.ignored(row) & (table.scores.astype(np.float32) > np.float32(LEAST_SCORE))
    overall = (overall_reliability(matches), counted)
    classes = [(each, counted & (table.labels == label)) for label, each in enumerate(class_reliabilities(matches))]
    for found, rows in (overall, *classes):
        assert found.counts.sum() == rows.sum()
        error, greatest = plain_error(table.scores[rows], true[rows])
        np.testing.assert_allclose(found.error, error)
        np.testing.assert_allclose(abs(found.gaps[found.worst_bin]), greatest)


def test_no_detections():
    found = reliability(np.zeros(0), np.zeros(0, dtype=bool))
    assert found.counts.tolist() == [0] * NUM_BINS and np.isnan(found.error) and found.worst_bin is None
    dataset, _ = scene(num_images=2)
    assert len(class_reliabilities(match(dataset.records, {}, dataset.class_names))) == len(dataset.class_names)


def test_a_score_at_an_edge_is_in_the_bin_above_it_also_in_float32():
    """As float32, 0.7 is a little below 0.7."""
    edges = np.arange(10) / 10
    for scores in (edges, edges.astype(np.float32).astype(np.float64)):
        assert reliability(scores, np.ones(10, dtype=bool)).counts.tolist() == [1] * 10


def test_scores_beyond_0_and_1_are_in_the_outer_bins():
    scores = np.array([1e300, 7.0, 1.0, -0.0, -3.0, -1e300])
    assert reliability(scores, np.zeros(6, dtype=bool)).counts.tolist() == [3, *[0] * 8, 3]
