"""Which images make up which batch: a pure function of a few numbers, so that a resumed run sees what it would have seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import count, islice
from typing import NamedTuple

import numpy as np


class Item(NamedTuple):
    """One place of the stream of training images."""

    image: int  # its number among the records
    seed: int  # of its augmentation


class Batches:
    """The endless batches of one process, for a DataLoader's `batch_sampler`.

    Batch number n of all is that of rank n % world_size. So the ranks' images of an epoch are disjoint, and together
    they are all. `groups` (N,) keeps images of different groups apart; None: one group.
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

    def __iter__(self) -> Iterator[list[Item]]:
        stream = all_batches(self.groups, self.batch_size, self.seed)
        return islice(stream, self.first_batch * self.world_size + self.rank, None, self.world_size)


def all_batches(groups: np.ndarray, batch_size: int, seed: int) -> Iterator[list[Item]]:
    """Every process's batches in turn. Images of a group wait for one another, past the end of an epoch if need be.

    So no image is left out of an epoch for want of companions: each is seen equally often.
    """
    names = groups.tolist()
    waiting: dict[int, list[Item]] = defaultdict(list)
    for epoch in count():
        for item in epoch_items(len(names), seed, epoch):
            bucket = waiting[names[item.image]]
            bucket.append(item)
            if len(bucket) == batch_size:
                yield bucket.copy()
                bucket.clear()


def epoch_items(num_images: int, seed: int, epoch: int) -> Iterator[Item]:
    """All images once, in an order of the epoch's own, each with a seed of its own."""
    # A negative seed is fine for torch; numpy wants it wrapped.
    rng = np.random.default_rng((seed % 2**64, epoch))
    order = rng.permutation(num_images).tolist()
    seeds = rng.integers(2**63, size=num_images).tolist()
    return map(Item, order, seeds)
