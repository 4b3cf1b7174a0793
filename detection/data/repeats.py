"""How often each training image is drawn: more often where it shows a rare class, or where its source has a weight.

Repeat factors are LVIS's (Gupta, Dollar, Girshick 2019, section 5.1). N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from detection.data.catalog import Dataset


def image_factors(dataset: Dataset, threshold: float) -> np.ndarray | None:
    """(N,) how often each image is drawn in an epoch, on average; None where that is once for all.

    It is the weight of the image's source times its repeat factor. Objects that are not trained on do not count.
    """
    factors = np.array([dataset.weights.get(record.image_id, 1.0) for record in dataset.records])
    if threshold > 0:
        factors = factors * repeat_factors(trained_classes(dataset), threshold)
    return None if bool((factors == 1).all()) else factors


def trained_classes(dataset: Dataset) -> list[set[int]]:
    """N sets: the labels of each image's objects that are trained on."""
    return [set(record.labels[record.trainable].tolist()) for record in dataset.records]


def repeat_factors(classes: Sequence[AbstractSet[int]], threshold: float) -> np.ndarray:
    """(N,) from the labels that each image shows: the greatest of its classes' factors max(1, sqrt(threshold / f)).

    f is the share of the N images that show the class. An image without objects has factor 1.
    """
    factors = {label: max(1.0, (threshold * len(classes) / count) ** 0.5) for label, count in count_images(classes).items()}
    return np.array([max((factors[label] for label in shown), default=1.0) for shown in classes])


def count_images(classes: Sequence[AbstractSet[int]]) -> dict[int, int]:
    """Label -> number of images that show it; labels that none shows are left out."""
    labels, counts = np.unique([label for shown in classes for label in shown], return_counts=True)
    return dict(zip(labels.astype(int).tolist(), counts.tolist(), strict=True))


def describe_factors(dataset: Dataset, threshold: float) -> str | None:
    """How often an epoch shows the rarest and the commonest class, as a sentence; None where all images are drawn once."""
    factors = image_factors(dataset, threshold)
    if factors is None:
        return None
    classes = trained_classes(dataset)
    counts = count_images(classes)
    least, most = factors.min(), factors.max()
    size = f"an epoch draws {factors.sum():.0f} images, each of the {len(factors)} {least:.3g} to {most:.3g} times"
    if not counts:
        return size
    seen = (
        f"the {which} class, '{dataset.class_names[label]}', is in {counts[label]} images and seen "
        f"{sum(factor for factor, shown in zip(factors.tolist(), classes, strict=True) if label in shown):.0f} times"
        for which, label in (
            ("rarest", min(counts, key=counts.__getitem__)),
            ("commonest", max(counts, key=counts.__getitem__)),
        )
    )
    return f"{size}: {', '.join(seen)}"
