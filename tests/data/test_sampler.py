"""Which images are in which batch: every rank, every epoch and every group gets its share."""

from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.data.sampler import GroupedBatchSampler


@given(
    groups=st.lists(st.booleans(), min_size=1, max_size=40),
    size=st.integers(1, 5),
    world=st.integers(1, 4),
    seed=st.integers(-3, 3),
)
@settings(max_examples=50)
def test_ranks_share_out_the_stream(groups, size, world, seed):
    groups = np.array(groups)
    per_rank = [list(islice(GroupedBatchSampler(len(groups), groups, size, seed, rank, world), 30)) for rank in range(world)]
    alone = list(islice(GroupedBatchSampler(len(groups), groups, size, seed), 30 * world))
    assert [batch for step in zip(*per_rank, strict=True) for batch in step] == alone
    assert all(len({groups[item.image] for item in batch}) == 1 and len(batch) == size for batch in alone)
    items = [item for batch in alone for item in batch]
    assert len(set(items)) == len(items), "an image and seed came twice"


def test_epochs_are_complete():
    """Without groups, each epoch of 12 is all images once; three ranks see disjoint parts of it."""
    per_rank = [list(islice(GroupedBatchSampler(12, None, 2, 0, rank, 3), 4)) for rank in range(3)]
    for epoch in range(2):
        images = [item.image for rank in per_rank for batch in rank[2 * epoch : 2 * epoch + 2] for item in batch]
        assert sorted(images) == list(range(12))


def test_groups_are_seen_equally_often():
    groups = np.array([True] * 7 + [False] * 4)
    counts = np.zeros(11, int)
    for batch in islice(GroupedBatchSampler(11, groups, 3, 0), 400):
        for item in batch:
            counts[item.image] += 1
    assert counts.max() - counts.min() <= 2  # some wait for company, while others have begun the next epoch
