"""Which images are in which batch: a pure function of a few numbers, so that a resumed run gets the same batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple

import numpy as np


class SampleIndex(NamedTuple):
    """One entry of the endless stream of training images: which image, and the random seed for it."""

    image: int  # its index among the records
    seed: int  # of its augmentation


class GroupedBatchSampler:
    """The endless batches of one process, for a DataLoader's `batch_sampler`.

    Of the one stream of batches, number n goes to rank n % world_size, so in an epoch the ranks see disjoint images, together
    all of them. A batch holds images of one group only: `groups` (N,) says the group of each; None: one group. `factors` (N,)
    says how often an epoch has each, on average; None: once.
    """

    def __init__(
        self,
        num_images: int,
        groups: np.ndarray | None,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        first_batch: int = 0,
        factors: np.ndarray | None = None,
    ) -> None:
        self.groups = np.zeros(num_images, bool) if groups is None else groups
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size, self.first_batch = rank, world_size, first_batch
        self.factors = factors

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        stream = all_batches(self.groups, self.batch_size, self.seed, self.factors)
        return islice(stream, self.first_batch * self.world_size + self.rank, None, self.world_size)


def all_batches(
    groups: np.ndarray, batch_size: int, seed: int, factors: np.ndarray | None = None
) -> Iterator[list[SampleIndex]]:
    """The stream of batches of all processes. An incomplete batch waits for more images of its group, if need be from the
    next epoch, so that no image is dropped and each is seen equally often, or as often as its factor says.
    """
    names = groups.tolist()
    waiting: dict[int, list[SampleIndex]] = defaultdict(list)
    for epoch in count():
        for item in epoch_samples(len(names), seed, epoch, factors):
            bucket = waiting[names[item.image]]
            bucket.append(item)
            if len(bucket) == batch_size:
                yield bucket.copy()
                bucket.clear()


def epoch_samples(num_images: int, seed: int, epoch: int, factors: np.ndarray | None = None) -> Iterator[SampleIndex]:
    """The epoch's images in its random order, each with a random seed: all once, or as often as `epoch_repeats` says."""
    # A negative seed is fine for torch; numpy wants it wrapped.
    rng = np.random.default_rng((seed % 2**64, epoch))
    images = np.arange(num_images) if factors is None else np.repeat(np.arange(num_images), epoch_repeats(factors, seed, epoch))
    order = rng.permutation(images).tolist()
    seeds = rng.integers(2**63, size=len(order)).tolist()
    return map(SampleIndex, order, seeds)


def epoch_repeats(factors: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """(N,) int: how often each image is in one epoch. Of a factor 2.3 that is 2, and in 3 of 10 epochs 3."""
    whole = np.floor(factors)
    # Numbers of their own: whole factors leave the order and the seeds of an epoch as they are without any.
    drawn = np.random.default_rng((seed % 2**64, epoch, 1)).random(len(factors))
    return (whole + (drawn < factors - whole)).astype(np.int64)
