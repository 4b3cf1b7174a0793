import pickle
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detection.errors import DatasetError
from detection.localisation import proposal_store
from detection.localisation.images import LocImages
from detection.localisation.proposal_store import (
    ProposalSource,
    StoredProposals,
    begin_store,
    decode_boxes,
    digest_of_images,
    encode_boxes,
    shard_file,
    write_shard,
)


def five_images(ids: Sequence[str] = ("a", "b", "c", "d", "e"), labels: Sequence[int] = (0, 1, 1, 0, 1)) -> LocImages:
    """Images of different sizes, with one box each."""
    return LocImages(
        class_names=("n01", "n02"),
        titles=("cat", "dog"),
        folder="nowhere",
        ids=np.array([name.encode() for name in ids]),
        sizes_hw=np.array([[50, 100], [333, 500], [1, 1], [64, 48], [2000, 3000]], np.int32),
        labels=np.array(labels),
        boxes=np.zeros((5, 4), np.float32),
        ends=np.arange(1, 6),
        unevaluated=np.zeros(5, bool),
    )


COUNTS = (3, 0, 1, 7, 2)


@pytest.fixture(autouse=True)
def two_images_per_shard(monkeypatch):
    monkeypatch.setattr(proposal_store, "SHARD_IMAGES", 2)


def source_of(images: LocImages) -> ProposalSource:
    return ProposalSource("abc", digest_of_images(images), len(images), {"rcnn.num_proposals": 200, "test.scales": [32, 64]})


def made(images: LocImages) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random boxes inside of each image, by falling score."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for (height, width), count in zip(images.sizes_hw.tolist(), COUNTS, strict=True):
        corners = torch.rand((count, 2, 2), generator=generator).sort(dim=1).values * torch.tensor([width, height])
        found.append((corners.reshape(-1, 4), torch.rand(count, generator=generator).sort(descending=True).values))
    return found


def write_all(folder, images: LocImages, numbers=None) -> list[tuple[torch.Tensor, torch.Tensor]]:
    source, proposals = source_of(images), made(images)
    for number in begin_store(folder, source) if numbers is None else numbers:
        rows = slice(2 * number, 2 * number + 2)
        write_shard(folder, number, source, proposals[rows], images.sizes_hw[rows])
    return proposals


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_no_coordinate_moves_by_more_than_a_65535th_of_its_side(size_hw, fractions):
    size = np.array(size_hw)
    box = np.array([fractions]) * [size_hw[1], size_hw[0], size_hw[1], size_hw[0]]
    back = decode_boxes(encode_boxes(box, size), size)
    assert back.dtype == torch.float32 and back.shape == (1, 4)
    limit = np.array([size_hw[1], size_hw[0]] * 2) / 65535
    assert (np.abs(back.numpy() - box) <= limit).all()


def test_what_lies_outside_of_the_image_is_clipped():
    assert encode_boxes(np.array([[-3.0, -1.0, 101.0, 50.0]]), np.array([50, 100])).tolist() == [[0, 0, 65535, 65535]]


def test_every_image_gets_its_own_proposals_back(tmp_path):
    images = five_images()
    proposals = write_all(tmp_path, images)
    stored = StoredProposals.open(tmp_path, images)
    assert len(stored) == 5
    for index in (4, 0, 2, 1, 3):
        boxes, scores = proposals[index]
        side = torch.tensor([images.sizes_hw[index][1], images.sizes_hw[index][0]] * 2)
        assert stored.boxes(index).shape == (COUNTS[index], 4) and stored.boxes(index).dtype == torch.float32
        assert bool(((stored.boxes(index) - boxes).abs() <= side / 65535).all())
        torch.testing.assert_close(stored.scores(index), scores, rtol=1e-3, atol=1e-3)


def test_it_pickles_without_the_boxes(tmp_path):
    images = five_images()
    write_all(tmp_path, images)
    stored = StoredProposals.open(tmp_path, images)
    again = pickle.loads(pickle.dumps(stored))
    assert torch.equal(again.boxes(3), stored.boxes(3)) and len(pickle.dumps(stored)) < 2000


def test_only_what_is_missing_is_made_again(tmp_path):
    images = five_images()
    write_all(tmp_path, images)
    source = source_of(images)
    assert begin_store(tmp_path, source) == []
    shard_file(tmp_path, 0).unlink()
    content = shard_file(tmp_path, 2).read_bytes()
    shard_file(tmp_path, 2).write_bytes(content[:-1])
    assert begin_store(tmp_path, source) == [0, 2]
    write_all(tmp_path, images, [0, 2])
    assert begin_store(tmp_path, source) == [] and shard_file(tmp_path, 2).read_bytes() == content


@pytest.mark.parametrize("length", [0, 5, 8, 60, -20, -1])
def test_a_shard_that_is_cut_short_is_refused(tmp_path, length):
    images = five_images()
    write_all(tmp_path, images)
    file = shard_file(tmp_path, 1)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DatasetError, match=r"00001\.safetensors is cut short or damaged; go on with the run \(--resume\)"):
        StoredProposals.open(tmp_path, images)


@pytest.mark.parametrize("damage", [b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}", b"none at all"])
def test_what_is_no_shard_is_refused(tmp_path, damage):
    images = five_images()
    write_all(tmp_path, images)
    shard_file(tmp_path, 1).write_bytes(damage)
    with pytest.raises(DatasetError, match="is cut short or damaged"):
        StoredProposals.open(tmp_path, images)


def test_a_shard_that_is_missing_or_of_another_run_is_named(tmp_path):
    images = five_images()
    write_all(tmp_path, images)
    file = shard_file(tmp_path, 1)
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(DatasetError, match=r"lacks 00001\.safetensors; go on"):
        StoredProposals.open(tmp_path, images)
    shard_file(tmp_path, 0).rename(file)
    shard_file(tmp_path, 0).write_bytes(content)
    with pytest.raises(DatasetError, match=r"is of another run than proposals\.json beside it"):
        StoredProposals.open(tmp_path, images)
    assert begin_store(tmp_path, source_of(images)) == [0, 1]


def test_other_images_are_refused(tmp_path):
    images = five_images()
    write_all(tmp_path, images)
    for other in (five_images(ids=("b", "a", "c", "d", "e")), five_images(labels=(0, 1, 1, 0, 0))):
        with pytest.raises(DatasetError, match="holds proposals of 5 images, which are not the 5 of data.train"):
            StoredProposals.open(tmp_path, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "abd"}, "of other weights than this run's RPN"),
        ({"images": "x"}, r"of other images than data\.train's"),
        ({"settings": {"test.scales": [32, 65]}}, r"made with test\.scales \[32, 64\], not \[32, 65\]"),
    ],
)
def test_a_folder_of_another_source_is_left_as_it_is(tmp_path, change, message):
    images = five_images()
    write_all(tmp_path, images)
    with pytest.raises(DatasetError, match=message):
        begin_store(tmp_path, replace(source_of(images), **change))
    assert begin_store(tmp_path, source_of(images)) == []


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 2}', '{"format": 1, "weights": 3}', "{"])
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "proposals.json").write_text(text)
    with pytest.raises(DatasetError, match=r"proposals\.json is"):
        StoredProposals.open(tmp_path, five_images())


def test_a_folder_that_vanishes_while_it_is_read(tmp_path):
    images = five_images()
    write_all(tmp_path, images)
    stored = StoredProposals.open(tmp_path, images)
    shard_file(tmp_path, 1).write_bytes(shard_file(tmp_path, 1).read_bytes()[:-60])
    with pytest.raises(DatasetError, match="was cut short while it was in use"):
        stored.boxes(3)
    shard_file(tmp_path, 1).unlink()
    with pytest.raises(DatasetError, match="cannot read the proposals in"):
        stored.boxes(3)
