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
    all of them. A batch holds images of one group only: `groups` (N,) says the group of each; None: one group.
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
    ) -> None:
        self.groups = np.zeros(num_images, bool) if groups is None else groups
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size, self.first_batch = rank, world_size, first_batch

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        stream = all_batches(self.groups, self.batch_size, self.seed)
        return islice(stream, self.first_batch * self.world_size + self.rank, None, self.world_size)


def all_batches(groups: np.ndarray, batch_size: int, seed: int) -> Iterator[list[SampleIndex]]:
    """The stream of batches of all processes. An incomplete batch waits for more images of its group, if need be from the
    next epoch, so that no image is dropped and each is seen equally often.
    """
    names = groups.tolist()
    waiting: dict[int, list[SampleIndex]] = defaultdict(list)
    for epoch in count():
        for item in epoch_samples(len(names), seed, epoch):
            bucket = waiting[names[item.image]]
            bucket.append(item)
            if len(bucket) == batch_size:
                yield bucket.copy()
                bucket.clear()


def epoch_samples(num_images: int, seed: int, epoch: int) -> Iterator[SampleIndex]:
    """Each image once, in the epoch's random order, each with a random seed."""
    # A negative seed is fine for torch; numpy wants it wrapped.
    rng = np.random.default_rng((seed % 2**64, epoch))
    order = rng.permutation(num_images).tolist()
    seeds = rng.integers(2**63, size=num_images).tolist()
    return map(SampleIndex, order, seeds)
