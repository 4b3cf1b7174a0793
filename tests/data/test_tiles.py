"""Large images as tiles in training: what each shows, which are drawn, and that their order is as exact as that of images."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detection.config import Config, DataConfig, parse_config
from detection.data.catalog import Dataset
from detection.data.images import read_image
from detection.data.loader import Sample, TrainDataset, train_loader
from detection.data.packing import PackedRecords
from detection.data.records import AnnotatedObject, make_record
from detection.data.sampler import SampleIndex
from detection.data.tiles import boxes_in, count_lost, cut_record, describe_tiles, tile_dataset, tile_factors, tile_record
from detection.data.transforms import make_target
from detection.errors import ConfigError, DatasetError
from detection.structures import Record
from detection.tiles import Window
from tests.data.pictures import Picture, Thing, write_picture
from tests.data.test_loader import assert_equal

TILE = Window(50, 0, 100, 100)


def record(*objects: AnnotatedObject, size_hw: tuple[int, int] = (100, 300)) -> Record:
    return make_record(1, Path("a.jpg"), size_hw, objects)


def data(**keys: object) -> DataConfig:
    return Config.model_validate({"data": {"tile": 100, **keys}}).data


def test_a_tile_shows_objects_in_its_own_pixels():
    whole = record(
        AnnotatedObject((60, 10, 80, 30), 2),
        AnnotatedObject((40, 10, 60, 30), 1),  # half of it
        AnnotatedObject((45, 50, 70, 70), 3, area=250),  # four fifths of it
        AnnotatedObject((200, 0, 220, 20), 0),
        AnnotatedObject((140, 80, 160, 90), 0, crowd=True),
    )
    tile = tile_record(whole, TILE, data())
    assert tile.boxes.tolist() == [[10, 10, 30, 30], [0, 10, 10, 30], [0, 50, 20, 70], [90, 80, 100, 90]]
    assert tile.labels.tolist() == [2, 1, 3, 0] and tile.areas.tolist() == pytest.approx([400, 200, 200, 100])
    assert tile.window == TILE and tile.size_hw == whole.size_hw and tile.file == whole.file
    target = make_target(tile)
    assert target.labels.tolist() == [2, 3] and target.ignored.tolist() == [[0, 10, 10, 30], [90, 80, 100, 90]]
    clipped = make_target(tile_record(whole, TILE, data(tile_cut="clip")))
    assert clipped.labels.tolist() == [2, 1, 3] and clipped.ignored.tolist() == [[90, 80, 100, 90]]
    assert make_target(tile_record(whole, TILE, data(tile_min_area=0.5))).labels.tolist() == [2, 1, 3]
    assert make_target(tile_record(whole, TILE, data(tile_min_area=1))).labels.tolist() == [2]
    assert len(tile_record(record(), TILE, data()).boxes) == 0


@given(st.data(), st.integers(0, 200), st.integers(0, 50))
def test_boxes_of_a_window_are_the_image_s_moved_and_cut(draw, x, y):
    window = Window(x, y, 100, 60)
    corner = draw.draw(st.tuples(st.floats(0, 290, width=32), st.floats(0, 90, width=32)))
    size = draw.draw(st.tuples(st.floats(0.5, 10, width=32), st.floats(0.5, 10, width=32)))
    box = torch.tensor([[*corner, corner[0] + size[0], corner[1] + size[1]]])
    (part,), (share,) = boxes_in(box, window)
    back = part + torch.tensor([x, y, x, y])
    inside = torch.tensor([x, y, x, y]) <= box[0], box[0] <= torch.tensor([x + 100, y + 60, x + 100, y + 60])
    if inside[0].all() and inside[1].all():
        torch.testing.assert_close(back, box[0], rtol=0, atol=1e-4)
        assert share == 1
    assert 0 <= share <= 1 and (part >= 0).all() and (part <= torch.tensor([100, 60, 100, 60])).all()


def test_an_image_that_fits_into_a_tile_stays_whole():
    small = record(AnnotatedObject((1, 2, 30, 40), 0), size_hw=(100, 90))
    assert cut_record(small, data())[0] is small and len(cut_record(small, data())) == 1
    large = record(AnnotatedObject((1, 2, 30, 40), 0))
    assert [part.window for part in cut_record(large, data())] == [
        None, Window(0, 0, 100, 100), Window(80, 0, 100, 100), Window(160, 0, 100, 100), Window(200, 0, 100, 100)
    ]  # fmt: skip
    assert len(cut_record(large, data(tile_whole=False))) == 4
    assert tile_dataset(images(large, small), data(tile=0)).records == [large, small]


def images(*records: Record) -> Dataset:
    return Dataset(("cat", "dog"), list(records))


def test_tiles_without_objects_are_drawn_less_often():
    large = record(AnnotatedObject((1, 2, 30, 40), 0), size_hw=(100, 1000))  # thirteen tiles, one with the object
    for share, expected in ((0, 0), (0.1, 0.1 / 12), (3, 3 / 12), (100, 1)):
        tiles = tile_dataset(images(large, record(size_hw=(50, 50))), data(tile_empty=share))
        factors = tile_factors(tiles.records, data(tile_empty=share)).tolist()
        assert factors == [1, 1, *[pytest.approx(expected)] * 12, 1]  # the whole image, the object's tile; the small image
    assert describe_tiles(images(large), tiles, data(tile_empty=3)) == [
        "an epoch is 1 tiles with objects, 3 of 12 without (data.tile_empty), and 2 whole images"
    ]
    assert describe_tiles(images(large), images(large), data(tile=0)) == []


def test_images_without_any_object_are_trained_on_or_refused():
    tiles = tile_dataset(images(record(size_hw=(100, 1000))), data(tile_whole=False))
    assert tile_factors(tiles.records, data()).sum() == pytest.approx(0.1)
    with pytest.raises(DatasetError, match="no tile of the training images holds an object: raise data.tile_empty"):
        tile_factors(tiles.records, data(tile_empty=0))


def test_objects_that_no_tile_holds_are_told():
    long = record(AnnotatedObject((10, 10, 290, 20), 0), AnnotatedObject((10, 50, 30, 60), 0))
    assert count_lost(long, data()) == 1
    whole, only_tiles = data(), data(tile_whole=False)
    assert len(describe_tiles(images(long), tile_dataset(images(long), whole), whole)) == 1  # the whole image shows it
    told = describe_tiles(images(long), tile_dataset(images(long), only_tiles), only_tiles)
    assert told[1].startswith("1 objects are learnt nowhere: no tile holds the share data.tile_min_area of them (0.7); set")


@pytest.fixture
def large(tmp_path: Path) -> Dataset:
    """Three pictures that are larger than a tile, and one that is not."""
    sizes = [(70, 150), (150, 60), (100, 100), (40, 50)]
    pictures = [
        Picture(n, size, (Thing("cat", (5, 5, 30, 35)), Thing("dog", (20, 12, 48, 30)))) for n, size in enumerate(sizes)
    ]
    records = []
    for picture in pictures:
        file = tmp_path / f"{picture.number}.jpg"
        write_picture(file, picture)
        objects = [AnnotatedObject(thing.box, label) for label, thing in enumerate(picture.things)]
        records.append(make_record(picture.number, file, picture.size_hw, objects))
    return Dataset(("cat", "dog"), records)


def config(workers: int = 0, **keys: object) -> Config:
    tiles = {"tile": 64, "tile_empty": 1, "classes": ["cat", "dog"], "shorter_sides": [32], "longer_side": 64}
    values = {"data": {**tiles, "workers": workers, **keys}, "train": {"images_per_device": 2, "seed": 5}}
    return parse_config(Config, values, "the test")


def test_a_sample_has_the_pixels_and_boxes_of_its_tile(large):
    plain = config(augmentations=[], shorter_sides=[64], longer_side=200).data
    images = TrainDataset(tile_dataset(large, plain).records, plain)
    assert len(images) == len({(images.records.file(i), images.records.window(i)) for i in range(len(images))})
    for index in range(len(images)):
        window, pixels = images.records.window(index), read_image(images.records.file(index))
        if window.size_hw == (64, 64):  # neither a whole image nor resized
            sample = images[SampleIndex(index, 0)]
            assert isinstance(sample, Sample)
            np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), window.crop(pixels))
            assert torch.equal(sample.target.boxes, images.records.target(index).boxes)


def test_packed_tiles_are_the_records(large):
    tiles = tile_dataset(large, config().data).records
    packed = PackedRecords.pack(tiles)
    for index, tile in enumerate(tiles):
        assert packed.window(index) == (tile.window or Window.whole(tile.size_hw)) and packed.size_hw(index) == tile.size_hw
        assert packed.is_wide[index] == (packed.window(index).width >= packed.window(index).height)
        assert torch.equal(packed.target(index).boxes, make_target(tile).boxes)


def test_tiles_are_the_same_under_any_number_of_workers_and_after_a_resume(large):
    expected = list(islice(train_loader(large, config()), 24))
    for one, other in zip(expected, islice(train_loader(large, config(2)), 24), strict=True):
        assert_equal(one, other)
    for one, other in zip(expected[17:], islice(train_loader(large, config(), first_batch=17), 7), strict=True):
        assert_equal(one, other)


def test_an_epoch_is_every_tile_with_an_object_once(large):
    tiles = tile_dataset(large, config().data).records
    full = [tile for tile in tiles if tile.trainable.any()]
    settings = config(aspect_grouping=False, tile_empty=0)
    ranks = [list(islice(train_loader(large, settings, rank=rank, world_size=2), len(full))) for rank in (0, 1)]
    files = [file for rank in ranks for batch in rank for file in batch.files]
    assert len(full) < len(tiles) and len(files) == 4 * len(full)
    for record in large.records:
        assert files.count(str(record.file)) == 4 * sum(tile.file == record.file for tile in full)


def test_empty_tiles_and_rare_classes_multiply(large):
    for record in large.records[1:]:
        record.labels[:] = 0
    counts = []
    for threshold in (0, 1):
        settings = config(repeat_threshold=threshold, aspect_grouping=False, tile_empty=0)
        files = [file for batch in islice(train_loader(large, settings), 40) for file in batch.files]
        counts.append(files.count(str(large.records[0].file)))
    assert counts[1] > 1.2 * counts[0] > 0


@pytest.mark.parametrize(
    "values", [{"tile": 20}, {"tile": -1}, {"tile_overlap": 0.95}, {"tile_min_area": 1.5}, {"tile_cut": "drop"}]
)
def test_tiles_that_cannot_be_are_refused(values):
    with pytest.raises(ConfigError, match=f"data.{next(iter(values))}"):
        parse_config(Config, {"data": values}, "the test")


def test_test_tiles_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="test.tile is 31: a tile has sides of at least 32"):
        parse_config(Config, {"test": {"tile": 31}}, "the test")
