import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.data.sampler import SampleIndex
from detection.errors import ConfigError, DatasetError
from detection.localisation.batches import RoiBatch, RpnBatch, rcnn_loader, rpn_loader
from detection.localisation.images import LocImages, read_loc_images
from detection.localisation.samples import LEAST_PART, RandomCrops, RoiDraw, RoiDraws, WarpedRois
from detection.localisation.warping import warp_region
from detection.modeling.boxes import pairwise_iou
from tests.localisation.loc_kit import make_config, write_example, write_image, write_kit, write_list, write_loc, write_xml

FILL = (124, 116, 104)
WHOLE: list[Any] = [{"Resize": {}}]


@dataclass(frozen=True)
class ListedProposals:
    """Proposals in memory."""

    of_image: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.of_image)

    def boxes(self, index: int) -> Tensor:
        return self.of_image[index]


def train_images(root, **data: Any) -> tuple[LocImages, Any]:
    config = make_config(root, data=data)
    return read_loc_images(config.data, config.data.train), config


def some_proposals(images: LocImages, count: int = 12) -> ListedProposals:
    """Boxes all over each image, and some near its objects."""
    made = []
    for index in range(len(images)):
        rng = np.random.default_rng(index)
        height, width = images.size_hw(index)
        corners = torch.from_numpy(rng.random((count, 2, 2)) * [width, height]).float().sort(dim=1).values.reshape(-1, 4)
        made.append(torch.cat([corners, images.boxes_of(index) + torch.tensor([1.0, 1, 2, 1])]))
    return ListedProposals(made)


@pytest.fixture(scope="module")
def root(module_path):
    return write_loc(module_path / "loc", per_class=4)


def equal(first: Any, second: Any) -> bool:
    """Whether two batches are the same to the last bit."""
    assert type(first) is type(second)
    pairs = [(getattr(first, name), getattr(second, name)) for name in first.__dataclass_fields__]
    return all(torch.equal(a, b) if isinstance(a, Tensor) else len(a) == len(b) and all(map(_same, a, b)) for a, b in pairs)


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def test_batches_move_as_one():
    crops = RpnBatch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), [torch.zeros(0, 4)] * 2, ["a", "b"])
    moved = crops.to("meta")
    assert len(moved) == 2 and moved.images.is_meta and moved.labels.is_meta and moved.files == ["a", "b"]
    assert all(boxes.is_meta for boxes in moved.boxes)
    rois = RoiBatch(crops.images, crops.labels, torch.zeros(2, 4), torch.ones(2, 4), torch.tensor([True, False]), ["a", "b"])
    there = rois.to("meta")
    assert len(there) == 2 and there.files == ["a", "b"] and there.rois.is_meta and there.gt_boxes.is_meta
    assert there.images.is_meta and there.labels.is_meta and there.is_positive.is_meta
    assert equal(rois, rois.to("cpu"))


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_are_a_function_of_their_number(root, workers):
    images, config = train_images(root)
    expected = list(islice(rpn_loader(images, config), 5))
    _, loading = train_images(root, workers=workers)
    for first in (0, 3):
        found = list(islice(rpn_loader(images, loading, first_batch=first), 2))
        assert all(equal(a, b) for a, b in zip(found, expected[first:], strict=False))
    other = make_config(root, rpn_train={"seed": 1})
    assert not equal(next(rpn_loader(images, other)), expected[0])


def test_ranks_share_each_epoch_out(root):
    images, config = train_images(root)
    ranks = [list(islice(rpn_loader(images, config, rank=rank, world_size=3), 1)) for rank in range(3)]
    files = [file for batches in ranks for batch in batches for file in batch.files]
    assert sorted(files) == sorted(images.file_of(index) for index in range(12))


def test_crops_are_uint8_in_the_convolutions_layout(root):
    images, config = train_images(root)
    batch = next(rpn_loader(images, config))
    assert batch.images.shape == (4, 3, 64, 64) and batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.dtype == torch.int64 and all(boxes.dtype == torch.float32 for boxes in batch.boxes)


def test_boxes_follow_the_resize(root):
    images, config = train_images(root, augmentations=WHOLE)
    batch = next(rpn_loader(images, config))
    for file, label, boxes in zip(batch.files, batch.labels, batch.boxes, strict=True):
        index = next(index for index in range(len(images)) if images.file_of(index) == file)
        assert label == images.labels[index]
        torch.testing.assert_close(boxes, images.boxes_of(index) * torch.tensor([64 / 60, 64 / 40] * 2))


def test_boxes_lie_on_their_objects(root):
    """The objects are bright on dark: within a box nearly all pixels are, whatever the crop and the flip."""
    images, config = train_images(root)
    crops = RandomCrops(images, config)
    seen = 0
    for seed in range(40):
        crop = crops(SampleIndex(seed % 12, seed))
        for x1, y1, x2, y2 in crop.boxes.round().int().tolist():
            inner = crop.image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].max(axis=2)
            assert inner.size == 0 or (inner > 150).mean() > 0.9
            seen += inner.size > 0
    assert seen > 30


def crop_of(x: int) -> list[Any]:
    """The columns from x on of a 60 px wide image."""
    return [{"Crop": {"x_min": x, "y_min": 0, "x_max": 60, "y_max": 40}}, {"Resize": {}}]


def test_parts_of_objects_are_cut_off_and_slivers_dropped(tmp_path):
    """Of the columns 10..29, and of 40..59."""
    write_kit(tmp_path)
    write_example(tmp_path, "train", "n01/a", "n01", [(10, 5, 29, 34), (40, 5, 59, 34)])
    write_list(tmp_path, "train_loc", ["n01/a"])

    def left_at(x: int) -> Tensor:
        images, config = train_images(tmp_path, augmentations=crop_of(x))
        return RandomCrops(images, config)(SampleIndex(0, 0)).boxes

    torch.testing.assert_close(left_at(20), torch.tensor([[0.0, 5, 10, 35], [20, 5, 40, 35]]) * 64 / 40)
    # 3 of 33 columns are more than a fourteenth, 2 of 32 are less.
    assert len(left_at(27)) == 2 and LEAST_PART < 3 / 33
    assert len(left_at(28)) == 1 and LEAST_PART > 2 / 32
    assert len(left_at(30)) == 1


def test_a_crop_beside_all_objects_has_none(tmp_path):
    write_kit(tmp_path)
    write_example(tmp_path, "train", "n01/a", "n01", [(0, 5, 19, 34)])
    write_list(tmp_path, "train_loc", ["n01/a"])
    images, config = train_images(tmp_path, augmentations=crop_of(25))
    batch = next(rpn_loader(images, config))
    assert [boxes.shape for boxes in batch.boxes] == [(0, 4)] * 4 and len(batch) == 4


def test_boxes_are_scaled_where_an_image_was_annotated_at_another_size(tmp_path):
    write_kit(tmp_path)
    write_image(tmp_path, "train", "n01/a", "n01", size_hw=(80, 120))
    write_xml(tmp_path, "train", "n01/a", [("n01", (6, 4, 29, 19))], size_hw=(40, 60))
    write_list(tmp_path, "train_loc", ["n01/a"])
    images, config = train_images(tmp_path, augmentations=WHOLE)
    expected = torch.tensor([[6.0, 4, 30, 20]])
    torch.testing.assert_close(
        RandomCrops(images, config)(SampleIndex(0, 0)).boxes, expected * torch.tensor([64 / 60, 64 / 40] * 2)
    )
    rois = WarpedRois(images, ListedProposals([torch.zeros(0, 4)]), config, FILL)
    for seed in range(4):
        roi, gt = rois(RoiDraw(0, seed, True)).roi_and_gt
        assert torch.equal(roi, gt) and roi.tolist() in ([12, 8, 60, 40], [60, 8, 108, 40])


@pytest.mark.parametrize(
    ("augmentations", "message"),
    [
        ([{"Resize": {"height": 16}}], r"data.augmentations give \(16, 64, 3\) uint8 for .*not \(64, 64, 3\)"),
        ([{"HorizontalFlop": {}}], "HorizontalFlop.*HorizontalFlip"),
    ],
)
def test_augmentations_that_cannot_be_used(root, augmentations, message):
    images, config = train_images(root, augmentations=augmentations)
    with pytest.raises(ConfigError, match=message):
        next(rpn_loader(images, config))


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_stop_the_run_or_are_skipped(tmp_path, caplog, workers):
    write_loc(tmp_path)
    images, config = train_images(tmp_path, workers=workers)
    (tmp_path / "Data/CLS-LOC/train/n01/n01_0.JPEG").unlink()
    (tmp_path / "Data/CLS-LOC/train/n01/n01_1.JPEG").write_bytes(b"no image")
    write_image(tmp_path, "train", "n02/n02_0", "n02", size_hw=(60, 40))
    proposals = some_proposals(images)
    for loader in (rpn_loader(images, config), rcnn_loader(images, proposals, config, fill=FILL)):
        with pytest.raises(DatasetError, match=r"n0[12]_[01]\.JPEG") as caught:
            list(islice(loader, 6))
        assert "\n" not in str(caught.value)
    _, skipping = train_images(tmp_path, on_bad_image="skip", workers=workers)
    batches: list[Any] = list(islice(rpn_loader(images, skipping), 6))
    batches += islice(rcnn_loader(images, proposals, skipping, fill=FILL), 6)
    assert [len(batch) for batch in batches] == [4] * 12
    good = {images.file_of(index) for index in (3, 4, 5)}
    assert {file for batch in batches for file in batch.files} == good
    assert "is 40x60 as displayed, but its annotation says 60x40" in caplog.text


def test_nothing_but_bad_images(tmp_path):
    write_loc(tmp_path)
    images, config = train_images(tmp_path, on_bad_image="skip")
    for index in range(len(images)):
        (tmp_path / images.file_of(index)).unlink()
    with pytest.raises(DatasetError, match="none of the images can be used; the first: .*JPEG"):
        next(rpn_loader(images, config))


@pytest.mark.parametrize("workers", [0, 2])
def test_rois_are_a_function_of_their_number(root, workers):
    images, config = train_images(root)
    proposals = some_proposals(images)
    expected = list(islice(rcnn_loader(images, proposals, config, fill=FILL), 5))
    _, loading = train_images(root, workers=workers)
    for first in (0, 3):
        found = list(islice(rcnn_loader(images, proposals, loading, first, fill=FILL), 2))
        assert all(equal(a, b) for a, b in zip(found, expected[first:], strict=False))
    ranks = [next(rcnn_loader(images, proposals, config, fill=FILL, rank=rank, world_size=2)) for rank in range(2)]
    assert not equal(*ranks) and not set(ranks[0].files) & set(ranks[1].files)


def test_a_batch_of_rois(root):
    """Each is one of its image's objects or proposals, with the best of its objects, mirrored with the pixels."""
    images, config = train_images(root)
    proposals = some_proposals(images)
    places = {images.file_of(index): index for index in range(len(images))}
    num_mirrored = 0
    for batch in islice(rcnn_loader(images, proposals, config, fill=FILL), 12):
        assert batch.images.shape == (4, 3, 64, 64) and batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.is_positive.tolist() == [True, False, False, False]
        for row, file in enumerate(batch.files):
            index = places[file]
            known = torch.cat([images.boxes_of(index), proposals.boxes(index)])
            warped, roi, gt = batch.images[row].permute(1, 2, 0).numpy(), batch.rois[row], batch.gt_boxes[row]
            mirrored = not (known == roi).all(dim=1).any()
            if mirrored:
                num_mirrored += 1
                warped = warped[:, ::-1]
                roi, gt = (torch.stack([60 - box[2], box[1], 60 - box[0], box[3]]) for box in (roi, gt))
                torch.testing.assert_close((known - roi).abs().amax(dim=1).min(), torch.tensor(0.0), rtol=0, atol=1e-4)
            iou = pairwise_iou(roi[None], images.boxes_of(index))[0]
            assert batch.labels[row] == images.labels[index]
            torch.testing.assert_close(images.boxes_of(index)[iou.argmax()], gt, rtol=0, atol=1e-4)
            assert (iou.max() >= 0.5) == batch.is_positive[row]
            expected = warp_region(images.image(index), roi, 64, 0, FILL)
            assert np.abs(expected.astype(int) - warped).max() == 0 or mirrored
    assert 12 <= num_mirrored <= 36


def test_positives_by_fraction_also_of_small_batches(root):
    def share(count: int, size: int, fraction: float, first: int = 0) -> list[int]:
        draws = RoiDraws([[SampleIndex(0, 0)] * size] * (count - first), fraction, first)
        return [sum(draw.is_positive for draw in batch) for batch in draws]

    assert share(4, 8, 0.25) == [2] * 4
    assert share(8, 1, 0.25) == [0, 0, 0, 1] * 2
    assert share(8, 1, 0.25, first=3) == [1, 0, 0, 0, 1]
    assert share(3, 4, 0) == [0] * 3 and share(3, 4, 1) == [4] * 3
    assert sum(share(100, 3, 0.3)) == 90


def test_another_image_is_drawn_where_one_has_no_negative(root):
    """Only image 5 has proposals; those without an area are none."""
    images, config = train_images(root)
    flat = torch.tensor([[3.0, 3, 3, 9], [5, 9, 8, 9]])
    far = torch.tensor([[0.0, 0, 2, 2]])
    proposals = ListedProposals([far if index == 5 else flat for index in range(12)])
    rois = WarpedRois(images, proposals, config, FILL)
    negative = rois(RoiDraw(2, 0, False))
    assert negative.file == images.file_of(5) and not negative.is_positive
    positive = rois(RoiDraw(2, 0, True))
    assert positive.file == images.file_of(2) and torch.equal(*positive.roi_and_gt)


def test_rois_between_the_thresholds_are_neither(root):
    """A box of 20 x 20 px, and the same shifted by 5 px: an IoU of 15/25."""
    images, _ = train_images(root)
    config = make_config(root, rcnn={"positive_iou": 0.7, "negative_iou": 0.5})
    boxes = [images.boxes_of(index) for index in range(12)]
    shifted = [box + (box[:, 2:3] - box[:, :1]) * torch.tensor([0.25, 0, 0.25, 0]) for box in boxes]
    rois = WarpedRois(images, ListedProposals(shifted), config, FILL)
    assert all(torch.equal(*rois(RoiDraw(index, index, True)).roi_and_gt) for index in range(12))
    with pytest.raises(ConfigError, match=r"rcnn.negative_iou is 0.5, and none of 50 images has a proposal with a lower IoU"):
        rois(RoiDraw(0, 0, False))


def test_proposals_of_other_images(root):
    images, config = train_images(root)
    with pytest.raises(DatasetError, match="there are proposals of 0 images, and 12 images: make the proposals anew"):
        rcnn_loader(images, ListedProposals([]), config, fill=FILL)


def test_what_workers_get_pickles(root):
    images, config = train_images(root)
    crop = pickle.loads(pickle.dumps(RandomCrops(images, config)))(SampleIndex(0, 3))
    assert np.array_equal(crop.image, RandomCrops(images, config)(SampleIndex(0, 3)).image)
    rois = WarpedRois(images, some_proposals(images), config, FILL)
    assert np.array_equal(pickle.loads(pickle.dumps(rois))(RoiDraw(1, 2, True)).image, rois(RoiDraw(1, 2, True)).image)


def test_real_photographs(real_data):
    config = make_config(real_data / "ilsvrc_mini", data={"image_size": 224}, rcnn={"padding": 16})
    images = read_loc_images(config.data, config.data.val)
    crops = next(rpn_loader(images, config))
    assert crops.images.shape == (4, 3, 224, 224) and sum(map(len, crops.boxes)) > 0
    rois = next(rcnn_loader(images, some_proposals(images), config, fill=FILL))
    assert rois.images.shape == (4, 3, 224, 224) and rois.is_positive.sum() == 1
