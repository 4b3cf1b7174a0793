"""Images of rare classes are drawn more often, by LVIS's formula; those of a source by its weight."""

import math
from collections import defaultdict
from collections.abc import Hashable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.config import Config, parse_config
from detection.data.catalog import Dataset, load_split
from detection.data.loader import train_loader
from detection.data.records import AnnotatedObject, make_record
from detection.data.repeats import describe_factors, image_factors, repeat_factors
from detection.data.sampler import GroupedBatchSampler, all_batches, epoch_repeats, epoch_samples
from tests.data.pictures import CLASSES, PICTURES, coco_source, voc_source, write_coco, write_devkit

BOX = (0.0, 0.0, 5.0, 5.0)


def lvis_factors(images, threshold):
    """As the paper writes it, from a list of annotations per image; detectron2's RepeatFactorTrainingSampler does the same."""
    counts: dict[int, int] = defaultdict(int)
    for annotations in images:
        for category in {annotation["category_id"] for annotation in annotations}:
            counts[category] += 1
    frequency = {category: count / len(images) for category, count in counts.items()}
    repeat = {category: max(1.0, math.sqrt(threshold / share)) for category, share in frequency.items()}
    return [max({repeat[annotation["category_id"]] for annotation in annotations}, default=1.0) for annotations in images]


def test_factors_by_hand():
    """Four images: class 0 is in three of them (f = 3/4), class 1 in one (f = 1/4). Threshold 1: sqrt(4 / 3) and sqrt(4)."""
    factors = repeat_factors([{0}, {0, 1}, {0}, set()], 1.0)
    assert factors.tolist() == pytest.approx([math.sqrt(4 / 3), 2.0, math.sqrt(4 / 3), 1.0])
    assert repeat_factors([{0}, {0, 1}, {0}, set()], 0.25).tolist() == [1.0, 1.0, 1.0, 1.0]


@given(images=st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=30), threshold=st.floats(1e-3, 1))
@settings(max_examples=60)
def test_factors_are_those_of_lvis(images, threshold):
    annotations = [[{"category_id": label} for label in labels] for labels in images]
    ours = repeat_factors([set(labels) for labels in images], threshold)
    np.testing.assert_allclose(ours, lvis_factors(annotations, threshold), rtol=1e-12)


@given(groups=st.lists(st.booleans(), min_size=1, max_size=20), seed=st.integers(-3, 3), rank=st.integers(0, 2))
@settings(max_examples=30)
def test_factors_of_one_change_nothing(groups, seed, rank):
    groups = np.array(groups)
    plain = GroupedBatchSampler(len(groups), groups, 3, seed, rank, 3)
    with_ones = GroupedBatchSampler(len(groups), groups, 3, seed, rank, 3, factors=np.ones(len(groups)))
    assert list(islice(plain, 20)) == list(islice(with_ones, 20))


def test_the_stream_without_factors_is_that_of_earlier_versions():
    """Runs of earlier versions go on with the same images: written down from one."""
    found = [tuple(item) for item in islice(epoch_samples(5, 7, 1), 5)]
    assert found == [
        (3, 1475326886611535089),
        (0, 3984209153961267258),
        (2, 4627628354153279871),
        (1, 9157209010238212847),
        (4, 2825868196985728052),
    ]


def test_factors_are_met_over_many_epochs():
    factors = np.array([1.0, 2.3, 0.5, 0.02, 3.0])
    counts = sum(epoch_repeats(factors, 3, epoch) for epoch in range(20_000))
    # Five standard deviations of a mean of 20,000 draws of 0 or 1 are 0.018 at most.
    np.testing.assert_allclose(counts / 20_000, factors, atol=0.018)
    epochs = [epoch_repeats(factors, 3, epoch) for epoch in range(50)]
    assert all(((epoch == np.floor(factors)) | (epoch == np.ceil(factors))).all() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1, "each epoch must draw anew"


def test_an_epoch_has_each_image_as_often_as_it_was_drawn():
    factors = np.array([1.0, 2.5, 0.5, 1.7])
    for epoch in range(5):
        items = list(epoch_samples(4, 3, epoch, factors))
        assert np.bincount([item.image for item in items], minlength=4).tolist() == epoch_repeats(factors, 3, epoch).tolist()
        assert len({item.seed for item in items}) == len(items), "two draws of an image must be augmented differently"


@given(first=st.integers(0, 40), world=st.integers(1, 3))
@settings(max_examples=25)
def test_a_resumed_stream_goes_on_where_it_was(first, world):
    factors, groups = np.array([1.0, 2.5, 0.25, 1.7, 1.0]), np.array([True, False, False, True, True])
    for rank in range(world):
        whole = list(islice(GroupedBatchSampler(5, groups, 2, 4, rank, world, factors=factors), first + 10))
        resumed = GroupedBatchSampler(5, groups, 2, 4, rank, world, first, factors=factors)
        assert list(islice(resumed, 10)) == whole[first:]


def test_rare_images_of_one_group_are_not_lost_among_the_other():
    """Batches hold one group each; over many of them every image is seen as often as its factor says."""
    factors, groups = np.array([1.0, 1.0, 4.0, 1.0]), np.array([True, True, False, False])
    counts = np.zeros(4)
    for batch in islice(all_batches(groups, 2, 0, factors), 700):
        for item in batch:
            counts[item.image] += 1
    np.testing.assert_allclose(counts / counts.sum(), factors / factors.sum(), atol=0.002)


def dataset(*labels: list[int], weights: dict[Hashable, float] | None = None, difficult: bool = False) -> Dataset:
    """Images 0, 1, ... whose objects have these labels."""
    records = [
        make_record(number, Path(f"{number}.jpg"), (10, 10), [AnnotatedObject(BOX, label, difficult) for label in found])
        for number, found in enumerate(labels)
    ]
    return Dataset(("a", "b"), records, weights=weights or {})


def test_weights_and_repeat_factors_multiply():
    images = dataset([0], [0, 1], [0], [], weights={1: 3.0, 3: 0.5})
    by_weight, by_both = image_factors(images, 0.0), image_factors(images, 1.0)
    assert by_weight is not None and by_weight.tolist() == [1.0, 3.0, 1.0, 0.5]
    assert by_both is not None and by_both.tolist() == pytest.approx([math.sqrt(4 / 3), 6.0, math.sqrt(4 / 3), 0.5])
    assert image_factors(dataset([0], [1]), 0.0) is None
    assert image_factors(dataset(), 0.5) is None


def test_objects_that_are_not_trained_on_do_not_count():
    assert image_factors(dataset([0], [1], difficult=True), 1.0) is None


def test_what_is_said_of_the_rarest_and_the_commonest():
    assert describe_factors(dataset([0], [0, 1], [0], []), 1.0) == (
        "an epoch draws 5 images, each of the 4 1 to 2 times: the rarest class, 'b', is in 1 images and seen 2 times, "
        "the commonest class, 'a', is in 3 images and seen 4 times"
    )
    assert describe_factors(dataset([0], [1]), 0.0) is None
    assert describe_factors(dataset([], [], weights={0: 3.0}), 0.1) == ("an epoch draws 4 images, each of the 2 1 to 3 times")


def config_of(folder: Path, **data) -> Config:
    """VOC's pictures 1 and 2, each once, and COCO's four, each twice."""
    write_devkit(folder, PICTURES[:2])
    write_coco(folder)
    sources = [voc_source(folder), coco_source(folder).model_copy(update={"weight": 2.0})]
    values = {"classes": CLASSES, "train": [source.model_dump() for source in sources], "aspect_grouping": False, **data}
    return parse_config(Config, {"data": values, "train": {"images_per_device": 2}}, "the test")


def files_of(config: Config, count: int) -> list[str]:
    stream = train_loader(load_split(config.data, "train"), config)
    files = [Path(file).name for batch in islice(stream, count) for file in batch.files]
    stream.close()
    return files


def test_the_weight_of_a_source_reaches_the_loader(tmp_path):
    config = config_of(tmp_path, workers=0)
    dataset = load_split(config.data, "train")
    assert dataset.weights == {1: 2.0, 2: 2.0, 3: 2.0, 4: 2.0}
    epoch = files_of(config, 5)  # 2 x 1 + 4 x 2 images; the sources name their files alike
    assert [epoch.count(f"00000{number}.jpg") for number in (1, 2, 3, 4)] == [3, 3, 2, 2]


def test_the_stream_is_the_same_with_workers(tmp_path):
    settings = {"repeat_threshold": 0.9}
    assert files_of(config_of(tmp_path, workers=0, **settings), 12) == files_of(config_of(tmp_path, workers=2, **settings), 12)
