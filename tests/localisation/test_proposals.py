"""The proposals of training images: what is stored is what the network gives, whoever makes them and however often."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from detection.engine.distributed import World
from detection.errors import DatasetError
from detection.localisation import proposal_store
from detection.localisation.images import LocImages, read_loc_images
from detection.localisation.merging import top_proposals
from detection.localisation.proposal_store import StoredProposals, shard_file
from detection.localisation.proposals import digest_of_weights, write_proposals
from detection.localisation.testing import find_boxes
from tests.localisation.loc_kit import make_config, write_loc
from tests.localisation.small_localiser import make_rpn

TINY: dict[str, dict[str, Any]] = {
    "model": {"backbone": "tiny"},
    "rpn": {"anchor_sizes": [24, 48], "anchor_ratios": [1.0, 2.0]},
}
CLASSES = ("n01", "n02", "n03")
ONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def two_images_per_shard(monkeypatch):
    monkeypatch.setattr(proposal_store, "SHARD_IMAGES", 2)


@pytest.fixture(scope="module")
def config(module_path):
    """Six training images; two images per batch of the test, so that batches and shards do not end together."""
    test = {"scales": [64], "longer_side": 160, "batch_size": 4}
    return make_config(write_loc(module_path / "loc"), None, **TINY, test=test, rcnn={"num_proposals": 4})


@pytest.fixture(scope="module")
def images(config) -> LocImages:
    return read_loc_images(config.data, config.data.train).subset(range(5))


@pytest.fixture
def rpn():
    torch.manual_seed(1)
    return make_rpn(CLASSES, **TINY)


def literal(model, images, config) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for row in range(len(images)):
        image = torch.from_numpy(images.image(row)).permute(2, 0, 1)
        found = find_boxes([model], image, torch.tensor([images.labels[row]]), config.test)
        boxes, scores = top_proposals(found, config.rcnn)
        yield boxes[0], scores[0]


def contents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_store_holds_the_best_boxes_of_each_images_class(config, images, rpn, tmp_path):
    told: list[str] = []
    assert write_proposals([rpn], images, config, tmp_path, world=ONE, tell=told.append)
    assert told == [f"proposals: part {n} of 3 is written ({size} images)" for n, size in ((1, 2), (2, 2), (3, 1))]
    stored = StoredProposals.open(tmp_path, images)
    for row, (boxes, scores) in enumerate(literal(rpn, images, config)):
        assert 0 < len(boxes) <= 4
        height, width = images.size_hw(row)
        torch.testing.assert_close(stored.boxes(row), boxes, rtol=0, atol=max(height, width) / 65535 + 1e-3)
        torch.testing.assert_close(stored.scores(row), scores, rtol=1e-3, atol=1e-3)


def test_what_was_stopped_or_damaged_goes_on_to_the_same_files(config, images, rpn, tmp_path):
    write_proposals([rpn], images, config, tmp_path / "whole", world=ONE)
    asked = iter([False] * 4 + [True] * 9)
    assert not write_proposals([rpn], images, config, tmp_path / "part", world=ONE, should_stop=lambda: next(asked))
    assert sorted(contents(tmp_path / "part")) == ["00000.safetensors", "proposals.json"]
    shard_file(tmp_path / "part", 0).write_bytes(b"cut")
    assert write_proposals([rpn], images, config, tmp_path / "part", world=ONE)
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")


def test_what_is_there_is_not_made_again(config, images, rpn, tmp_path, monkeypatch):
    write_proposals([rpn], images, config, tmp_path, world=ONE)
    monkeypatch.setattr("detection.localisation.proposals.find_boxes_at", None)
    assert write_proposals([rpn], images, config, tmp_path, world=ONE)


def test_each_process_makes_its_share(config, images, rpn, tmp_path, monkeypatch):
    write_proposals([rpn], images, config, tmp_path / "one", world=ONE)
    # Both ask at the same time what is missing.
    monkeypatch.setattr("detection.localisation.proposals.on_main", lambda world, work: work() and [0, 1, 2])
    for rank, made in ((1, [1]), (0, [0, 2])):
        before = set(contents(tmp_path / "two")) if rank == 0 else set()
        write_proposals([rpn], images, config, tmp_path / "two", world=World(rank, 2, torch.device("cpu")))
        new = set(contents(tmp_path / "two")) - before - {"proposals.json"}
        assert new == {f"{number:05d}.safetensors" for number in made}
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_other_weights_images_and_settings_are_refused(config, images, rpn, tmp_path):
    write_proposals([rpn], images, config, tmp_path, world=ONE)
    with pytest.raises(DatasetError, match="holds proposals of other weights than this run's RPN"):
        write_proposals([make_rpn(CLASSES, **TINY)], images, config, tmp_path, world=ONE)
    with pytest.raises(DatasetError, match=r"holds proposals of other images than data\.train's"):
        write_proposals([rpn], images.subset([1, 0, 2, 3, 4]), config, tmp_path, world=ONE)
    flipped = config.model_copy(update={"test": config.test.model_copy(update={"flip": True})})
    with pytest.raises(DatasetError, match=r"made with test\.flip False, not True"):
        write_proposals([rpn], images, flipped, tmp_path, world=ONE)


def test_an_image_that_cannot_be_read(config, images, rpn, tmp_path, caplog):
    broken = replace(images, ids=images.ids.copy())
    broken.ids[2] = b"n09/none"
    with pytest.raises(DatasetError, match=r"n09/none\.JPEG"):
        write_proposals([rpn], broken, config, tmp_path / "a", world=ONE)
    skipping = config.model_copy(update={"data": config.data.model_copy(update={"on_bad_image": "skip"})})
    assert write_proposals([rpn], broken, skipping, tmp_path / "b", world=ONE)
    assert "it has no proposals" in caplog.text
    stored = StoredProposals.open(tmp_path / "b", broken)
    assert stored.boxes(2).shape == (0, 4)
    for row, (boxes, _) in ((3, list(literal(rpn, images, config))[3]),):
        torch.testing.assert_close(stored.boxes(row), boxes, rtol=0, atol=0.01)


def test_the_digest_tells_weights_apart(rpn):
    before = digest_of_weights([rpn])
    assert digest_of_weights([rpn]) == before
    with torch.no_grad():
        rpn.head.scores.bias[0] += 1e-6
    assert digest_of_weights([rpn]) != before


def test_the_digest_tells_anchors_and_preprocessing_apart(rpn):
    """Neither is in a file's state dict, and both change what the weights predict."""
    other = make_rpn(CLASSES, **{**TINY, "rpn": {"anchor_sizes": [30, 60]}})
    other.load_state_dict(rpn.state_dict())
    assert digest_of_weights([other]) != digest_of_weights([rpn])
    other = make_rpn(CLASSES, **TINY)
    other.load_state_dict(rpn.state_dict())
    assert digest_of_weights([other]) == digest_of_weights([rpn])
    other.preprocessing = replace(other.preprocessing, channel_order="bgr")
    assert digest_of_weights([other]) != digest_of_weights([rpn])
