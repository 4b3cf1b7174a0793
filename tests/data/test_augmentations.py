"""The paper's own augmentations."""

import numpy as np
import pytest

from detection.data.augmentations import EIGENVALUES, EIGENVECTORS
from detection.data.transforms import build_augmentation, reseed
from detection.errors import ConfigError


def augmented(name, options, image, seed=3):
    augmentation = build_augmentation([{name: options}], boxes=False)
    reseed(augmentation, seed)
    return augmentation(image=image)["image"]


def test_the_components_are_orthonormal_and_ordered():
    np.testing.assert_allclose(EIGENVECTORS.T @ EIGENVECTORS, np.eye(3), atol=2e-3)
    assert (np.diff(EIGENVALUES) < 0).all()


def test_all_pixels_shift_alike_along_the_principal_colours():
    image = np.full((5, 7, 3), 128, np.uint8)
    shifts = np.stack([augmented("AlexNetColor", {"std": 1.0}, image, seed)[0, 0].astype(float) - 128 for seed in range(300)])
    assert (augmented("AlexNetColor", {"std": 1.0}, image) == augmented("AlexNetColor", {"std": 1.0}, image)).all()
    # The first component, nearly grey, has almost all of the variance.
    along = shifts @ EIGENVECTORS / 255
    assert along[:, 0].std() == pytest.approx(EIGENVALUES[0], rel=0.15)
    assert along[:, 1].std() == pytest.approx(EIGENVALUES[1], rel=0.25)


def test_any_shorter_side_of_the_range_comes():
    image = np.zeros((40, 60, 3), np.uint8)
    sides = {min(augmented("RandomShorterSide", {"low": 20, "high": 23}, image, seed).shape[:2]) for seed in range(60)}
    assert sides == {20, 21, 22, 23}


@pytest.mark.parametrize("options", [{"low": 30, "high": 20}, {"height": 3}])
def test_a_wrong_range_is_one_line(options):
    with pytest.raises(ConfigError, match="RandomShorterSide"):
        build_augmentation([{"RandomShorterSide": options}], boxes=False)
