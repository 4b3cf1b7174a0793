"""Masks follow their image and their boxes: through augmentation, resize, tiles, packing and the loader."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from albumentations.core.type_definitions import Targets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from detection.config import Config, DataConfig
from detection.data import transforms
from detection.data.augmentations import build_augmentation, reseed
from detection.data.catalog import Dataset
from detection.data.loader import TrainDataset, train_loader
from detection.data.packing import PackedRecords
from detection.data.paper_transforms import PAPER_TRANSFORMS
from detection.data.tiles import tile_dataset, tile_record
from detection.data.transforms import augment, make_target, mask_boxes, resize
from detection.errors import ConfigError
from detection.masks import Masks, compact
from detection.structures import Batch, Record, Target
from detection.tiles import Window
from tests.there import there

FLIP = build_augmentation([{"HorizontalFlip": {"p": 1.0}}], masks=True)


def ellipses(*xyxy: tuple[int, int, int, int], size_hw: tuple[int, int]) -> Tensor:
    """(G, H, W) bool: in each box of whole pixels the ellipse that touches its four sides; nothing in an empty one."""
    y, x = torch.arange(size_hw[0])[:, None] + 0.5, torch.arange(size_hw[1]) + 0.5
    masks = []
    for x1, y1, x2, y2 in xyxy:
        inside = ((x - (x1 + x2) / 2) / max(x2 - x1, 1)) ** 2 + ((y - (y1 + y2) / 2) / max(y2 - y1, 1)) ** 2 <= 0.25
        inside[y1:y2, (x1 + x2) // 2 : (x1 + x2) // 2 + (x2 > x1)] = True  # so that it does touch them
        inside[(y1 + y2) // 2 : (y1 + y2) // 2 + (y2 > y1), x1:x2] = True
        masks.append(inside)
    return torch.stack(masks) if masks else torch.zeros((0, *size_hw), dtype=torch.bool)


def target_of(masks: Tensor, boxes: Tensor | None = None) -> Target:
    return Target(mask_boxes(masks) if boxes is None else boxes, torch.arange(len(masks)), torch.zeros(0, 4), masks=masks)


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def assert_together(target: Target) -> None:
    """Each box is the one around its mask, within a pixel."""
    assert target.masks is not None and len(target.masks) == len(target.boxes) == len(target.labels)
    torch.testing.assert_close(mask_boxes(target.masks), target.boxes, atol=1.001, rtol=0)


@st.composite
def scenes(draw: st.DrawFn) -> Target:
    """Objects in an image, each with its mask."""
    height, width = draw(st.integers(8, 90)), draw(st.integers(8, 90))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x1, y1 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
        boxes.append((x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))))
    return target_of(ellipses(*boxes, size_hw=(height, width)))


def test_boxes_of_masks_by_hand():
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 3, 5] = masks[2, 4, 6] = True
    assert mask_boxes(masks).tolist() == [[2, 1, 6, 4], [0, 0, 0, 0], [6, 4, 7, 5]]
    assert mask_boxes(masks[:0]).shape == (0, 4)


@given(scene=scenes())
@settings(max_examples=15)
def test_mirror_is_exact(scene):
    assert scene.masks is not None
    image, found = augment(pixels(*scene.masks.shape[1:]), scene, FLIP)
    assert (
        found.masks is not None and torch.equal(found.masks, scene.masks.flip(2)) and image.shape[:2] == found.masks.shape[1:]
    )
    torch.testing.assert_close(found.boxes, mask_boxes(scene.masks.flip(2)), atol=1e-3, rtol=0)


@given(scene=scenes(), data=st.data())
@settings(max_examples=25)
def test_what_a_crop_leaves_of_a_mask_is_what_its_box_is_around(scene, data):
    height, width = scene.masks.shape[1:]
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    crop = build_augmentation([{"Crop": {"x_min": x1, "y_min": y1, "x_max": x2, "y_max": y2}}], masks=True)
    _, found = augment(pixels(height, width), scene, crop)
    left = scene.masks[:, y1:y2, x1:x2]
    seen = left.flatten(1).any(dim=1)
    assert found.labels.tolist() == scene.labels[seen].tolist()
    assert torch.equal(there(found.masks), left[seen])
    torch.testing.assert_close(found.boxes, mask_boxes(left[seen]), atol=1e-3, rtol=0)


@given(scene=scenes(), size_hw=st.tuples(st.integers(1, 300), st.integers(1, 300)))
@settings(max_examples=25)
def test_resized_to_any_size_box_and_mask_stay_together(scene, size_hw):
    """Of objects that fill their boxes: the nearest pixel misses tips that are thinner than a pixel of the result."""
    for mask, (x1, y1, x2, y2) in zip(scene.masks, scene.boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    image, found = resize(pixels(*scene.masks.shape[1:]), scene, size_hw)
    assert (
        image.shape[:2] == size_hw
        and there(found.masks).shape == (len(scene.labels), *size_hw)
        and there(found.masks).dtype == torch.bool
    )
    seen = there(found.masks).flatten(1).any(dim=1)
    assert_together(Target(found.boxes[seen], found.labels[seen], found.ignored, masks=there(found.masks)[seen]))
    lost = found.boxes[~seen]
    assert ((lost[:, 2:] - lost[:, :2]).amin(dim=1) < 2).all(), "only what is smaller than two pixels can be lost"


def test_resize_takes_the_pixel_nearest_to_the_centre():
    """A literal second implementation: source pixel floor((x + 0.5) * W / w)."""
    masks = torch.rand(3, 13, 17, generator=torch.Generator().manual_seed(0)) < 0.5
    for height, width in ((13, 17), (7, 40), (40, 5), (26, 34), (1, 1)):
        _, found = resize(pixels(13, 17), target_of(masks), (height, width))
        rows, columns = ((torch.arange(to) * 2 + 1) * of // (2 * to) for to, of in ((height, 13), (width, 17)))
        assert torch.equal(there(found.masks), masks[:, rows][:, :, columns])


@pytest.mark.parametrize(
    "augmentation",
    [
        {"Rotate": {"limit": [30, 30], "p": 1.0}},
        {"Affine": {"scale": [0.7, 1.3], "rotate": [-40, 40], "shear": [-10, 10], "p": 1.0}},
        {"RandomScale": {"scale_limit": 0.5, "p": 1.0}},
        {"Transpose": {"p": 1.0}},
        {"RandomRotate90": {"p": 1.0}},
        {"Perspective": {"p": 1.0}},
        {"RandomShorterSide": {"low": 30, "high": 90}},
        {"RandomSizedBBoxSafeCrop": {"height": 50, "width": 40, "p": 1.0}},
    ],
)
def test_whatever_moves_pixels_keeps_box_and_mask_together(augmentation):
    scene = target_of(ellipses((20, 15, 50, 45), (40, 30, 75, 70), (5, 50, 25, 60), size_hw=(80, 100)))
    built = build_augmentation([augmentation], masks=True)
    for seed in range(4):
        reseed(built, seed)
        image, found = augment(pixels(80, 100), scene, built)
        assert there(found.masks).shape[1:] == image.shape[:2] and there(found.masks).flatten(1).any(dim=1).all()
        torch.testing.assert_close(mask_boxes(there(found.masks)), found.boxes, atol=1.6, rtol=0)


def test_each_copy_of_a_mirroring_border_has_its_own_part_of_the_mask():
    pad = build_augmentation([{"PadIfNeeded": {"min_height": 40, "min_width": 120, "border_mode": 4}}], masks=True)
    _, found = augment(pixels(40, 60), target_of(ellipses((5, 10, 15, 20), size_hw=(40, 60))), pad)
    assert len(found.boxes) > 1 and (found.labels == 0).all()
    torch.testing.assert_close(mask_boxes(there(found.masks)), found.boxes, atol=1.001, rtol=0)


def test_an_unknown_mask_stays_unknown_and_its_box_stays():
    masks = ellipses((10, 10, 30, 30), (0, 0, 0, 0), (40, 10, 60, 30), size_hw=(40, 60))
    boxes = torch.tensor([[10.0, 10, 30, 30], [20, 5, 50, 35], [40, 10, 60, 30]])
    crop = build_augmentation([{"Crop": {"x_min": 0, "y_min": 0, "x_max": 35, "y_max": 40}}], masks=True)
    _, found = augment(pixels(40, 60), target_of(masks, boxes), crop)
    assert found.labels.tolist() == [0, 1] and there(found.masks).flatten(1).sum(dim=1).tolist() == [int(masks[0].sum()), 0]
    torch.testing.assert_close(found.boxes, torch.tensor([[10.0, 10, 30, 30], [20, 5, 35, 35]]), atol=1e-3, rtol=0)


def test_a_crop_that_empties_a_mask_drops_the_box_that_it_does_not_empty():
    """An L: its box reaches into the upper right quarter, where nothing of it is."""
    masks = torch.zeros(1, 40, 40, dtype=torch.bool)
    masks[0, :, :10] = masks[0, 30:] = True
    crop = build_augmentation([{"Crop": {"x_min": 15, "y_min": 0, "x_max": 40, "y_max": 25}}], masks=True)
    _, found = augment(pixels(40, 40), target_of(masks), crop)
    assert len(found.boxes) == len(found.labels) == len(there(found.masks)) == 0 and there(found.masks).shape == (0, 25, 25)
    _, bare = augment(pixels(40, 40), Target(mask_boxes(masks), torch.tensor([0]), torch.zeros(0, 4)), crop)
    assert bare.boxes.tolist() == [[0, 0, 25, 25]] and bare.masks is None, "a detector of boxes alone learns as before"


def test_a_loose_box_stays_as_loose_as_it_was():
    """VOC's boxes are drawn some pixels around masks, whose borders are void."""
    masks = ellipses((10, 10, 30, 30), size_hw=(40, 60))
    _, found = augment(pixels(40, 60), target_of(masks, torch.tensor([[6.0, 7, 33, 32]])), FLIP)
    torch.testing.assert_close(found.boxes, torch.tensor([[27.0, 7, 54, 32]]), atol=1e-3, rtol=0)


def test_images_without_masks_pay_nothing(monkeypatch):
    given = []
    real = transforms.apply_augmentation

    def spy(*arguments: Any) -> dict[str, Any]:
        given.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(transforms, "apply_augmentation", spy)
    bare = Target(torch.tensor([[1.0, 2, 10, 20]]), torch.tensor([0]), torch.zeros(0, 4))
    for target in (bare, target_of(torch.zeros(0, 40, 60, dtype=torch.bool))):
        _, found = augment(pixels(40, 60), target, FLIP)
        assert (found.masks is None) == (target.masks is None)
    assert given == [None, None]


def test_ignored_regions_have_no_mask():
    masks = ellipses((10, 10, 30, 30), size_hw=(40, 60))
    scene = Target(mask_boxes(masks), torch.tensor([3]), torch.tensor([[0.0, 0, 20, 40], [30, 0, 60, 40]]), masks=masks)
    _, found = augment(pixels(40, 60), scene, FLIP)
    assert found.labels.tolist() == [3] and len(there(found.masks)) == 1 and len(found.ignored) == 2


class OnlyBoxes(A.HorizontalFlip):
    """A transform that would leave masks where they were."""

    _targets = (Targets.IMAGE, Targets.BBOXES)

    @property
    def targets(self) -> dict[str, Any]:
        return {name: function for name, function in super().targets.items() if "mask" not in name}


def test_a_transform_that_does_not_move_masks_is_refused_where_there_are_some(monkeypatch):
    monkeypatch.setitem(PAPER_TRANSFORMS, "OnlyBoxes", OnlyBoxes)
    build_augmentation([{"OnlyBoxes": {}}])
    with pytest.raises(ConfigError, match="augmentation 'OnlyBoxes' does not move masks with the image"):
        build_augmentation([{"OnlyBoxes": {}}], masks=True)


def record_of(masks: Tensor | None, file: Path = Path("x.png"), size_hw: tuple[int, int] = (40, 60)) -> Record:
    boxes = torch.tensor([[0.0, 0, 5, 5]]) if masks is None else mask_boxes(masks)
    flags = torch.zeros(len(boxes), dtype=torch.bool)
    rles = None if masks is None else Masks.from_bitmaps(masks)
    return Record(
        str(file), file, size_hw, boxes, torch.arange(len(boxes)), flags, flags.clone(), torch.ones(len(boxes)), masks=rles
    )


def test_packed_masks_are_those_of_the_records():
    masks = ellipses((10, 10, 30, 30), (0, 0, 60, 40), (40, 5, 50, 20), size_hw=(40, 60))
    record = record_of(masks)
    record.crowd[1] = True
    packed = pickle.loads(pickle.dumps(PackedRecords.pack([record_of(None), record, record_of(masks[:0])])))
    assert packed.target(0).masks is None
    found = packed.target(1)
    assert found.labels.tolist() == [0, 2] and torch.equal(found.masks, masks[[0, 2]]) and len(found.ignored) == 1
    assert packed.target(2).masks.shape == (0, 40, 60)
    assert torch.equal(there(found.masks), there(make_target(record).masks)) and torch.equal(
        found.boxes, make_target(record).boxes
    )


def polygon_records(folder: Path) -> list[Record]:
    """Two images of two objects as an annotation file has them: an L with a corner between pixels, and two triangles."""
    l_shape = [5.25, 5.5, 20.1, 5.5, 20.1, 20.9, 50.3, 20.9, 50.3, 35.75, 5.25, 35.75]
    triangles = [[30.0, 2.0, 40.0, 2.0, 35.0, 12.0], [45.0, 2.0, 58.0, 2.0, 58.0, 15.0]]
    masks = Masks((40, 60), (compact([l_shape], (40, 60)), compact(triangles, (40, 60))))
    records = []
    for number in range(2):
        file = folder / f"{number}.png"
        Image.fromarray(pixels(40, 60)).save(file)
        records.append(replace(record_of(masks.decode(), file), masks=masks))
    return records


def test_polygons_travel_to_the_loader_and_become_the_targets_of_their_bitmaps(tmp_path):
    lazy = polygon_records(tmp_path)
    eager = [replace(record, masks=there(record.masks).rasterised()) for record in lazy]
    packed = [pickle.loads(pickle.dumps(PackedRecords.pack(records))).target(1) for records in (lazy, eager)]
    assert torch.equal(there(packed[0].masks), there(packed[1].masks)) and there(packed[0].masks).any(dim=(1, 2)).all()
    window, data = Window(18, 0, 30, 25), DataConfig(classes=("a", "b", "c"), tile=32, tile_cut="clip")
    tiles = [PackedRecords.pack([tile_record(records[0], window, data)]).target(0) for records in (lazy, eager)]
    assert torch.equal(there(tiles[0].masks), there(tiles[1].masks)) and torch.equal(tiles[0].boxes, tiles[1].boxes)
    batches = []
    for records, workers in ((lazy, 1), (eager, 0)):
        loader = train_loader(Dataset(("a", "b", "c"), records), config(tmp_path, workers))
        batches.append(next(loader))
        loader.close()
    for one, other in zip(*(batch.targets for batch in batches), strict=True):
        assert torch.equal(there(one.masks), there(other.masks)) and torch.equal(one.boxes, other.boxes)


def test_records_without_masks_pack_no_byte_for_them():
    packed = PackedRecords.pack([record_of(None)] * 3)
    assert len(packed.rles) == len(packed.rle_ends) == 0 and not packed.has_masks.any()
    assert PackedRecords.pack([]).has_masks.shape == (0,)


def test_selection_keeps_masks_with_boxes():
    record = record_of(ellipses((10, 10, 30, 30), (0, 0, 0, 0), (40, 5, 50, 20), size_hw=(40, 60)))
    chosen = record.select(torch.tensor([False, True, True]))
    assert chosen.labels.tolist() == [1, 2] and there(chosen.masks) == there(record.masks)[1:]
    assert record_of(None).select(torch.tensor([], dtype=torch.long)).masks is None


def test_a_tile_shows_its_part_of_each_mask():
    """The L's box reaches into the tile, but not the L; the disc is cut; one object's mask is not known."""
    masks = torch.zeros(3, 40, 60, dtype=torch.bool)
    masks[0, :, :10] = masks[0, 30:] = True
    masks[1] = ellipses((20, 5, 40, 25), size_hw=(40, 60))[0]
    record = record_of(masks)
    record.boxes[2] = torch.tensor([35.0, 0, 60, 20])
    window = Window(30, 0, 30, 25)
    data = DataConfig(classes=("a", "b", "c"), tile=32, tile_cut="clip")
    for target in (
        make_target(tile_record(record, window, data)),
        PackedRecords.pack([tile_record(record, window, data)]).target(0),
    ):
        assert target.labels.tolist() == [1, 2]
        assert torch.equal(there(target.masks), masks[[1, 2], :25, 30:])
        assert target.boxes.tolist() == [[0, 5, 10, 25], [5, 0, 30, 20]]


def config(tmp_path: Path, workers: int = 0, **data: Any) -> Config:
    settings = {"classes": ["a", "b", "c"], "workers": workers, "shorter_sides": [60], "longer_side": 100, **data}
    augmentations = [{"HorizontalFlip": {"p": 0.5}}]
    return Config.model_validate(
        {"model": {"mask": True}, "data": {"augmentations": augmentations, **settings}, "train": {"images_per_device": 2}}
    )


def dataset(tmp_path: Path) -> Dataset:
    """Three images, of which one has no masks; white where an object is."""
    records = []
    for number, boxes in enumerate(([(10, 10, 30, 30), (40, 5, 50, 20)], [(5, 5, 50, 35)], None)):
        masks = None if boxes is None else ellipses(*boxes, size_hw=(40, 60))
        white = np.zeros((40, 60), bool) if masks is None else masks.any(dim=0).numpy()
        file = tmp_path / f"{number}.png"
        Image.fromarray(np.repeat(white[..., None], 3, axis=2).astype(np.uint8) * 255).save(file)
        records.append(record_of(masks, file))
    return Dataset(("a", "b", "c"), records)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_carry_masks(tmp_path, workers):
    with_closing = train_loader(dataset(tmp_path), config(tmp_path, workers))
    batches = [next(with_closing) for _ in range(3)]
    with_closing.close()
    targets = [(batch.images[row], target) for batch in batches for row, target in enumerate(batch.targets)]
    assert any(target.masks is None for _, target in targets) and any(target.masks is not None for _, target in targets)
    for image, target in targets:
        if target.masks is not None:
            assert_together(target)
            white = image[0] > 127
            assert ((target.masks.any(dim=0) != white).float().mean()) < 0.02, "masks lie where the image is white"
            assert there(target.to("meta").masks).shape == there(target.masks).shape and there(target.masks).dtype == torch.bool
    loaded = pickle.loads(pickle.dumps(batches[0]))
    assert isinstance(loaded, Batch)


def test_images_without_masks_are_decoded_without(tmp_path):
    images = TrainDataset([record_of(None, record.file) for record in dataset(tmp_path).records], config(tmp_path).data)
    assert not images.records.has_masks.any() and "mask" not in str(images.augmentation.processors)


def test_tiles_of_a_data_set_carry_masks(tmp_path):
    data = config(tmp_path, tile=32, tile_overlap=0.0, tile_cut="clip").data
    whole = dataset(tmp_path)
    tiles = tile_dataset(whole, data)
    assert sum(record.masks is not None for record in tiles.records) > 2
    total = sum(
        int(there(make_target(record).masks).sum()) for record in tiles.records if record.masks is not None and record.window
    )
    assert total >= sum(int(record.masks.areas.sum()) for record in whole.records if record.masks is not None)
