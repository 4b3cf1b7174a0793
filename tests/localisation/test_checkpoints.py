"""Checkpoints of both stages come back whole, and what is refused."""

import pytest
import torch

from backbones import Preprocessing, save_checkpoint
from detection.errors import CheckpointError
from detection.localisation.checkpoints import load_rcnn, load_rpn, loc_metadata
from detection.localisation.networks import initialise
from detection.weights.checkpoint import write_checkpoint
from tests.localisation.small_localiser import NAMES, make_rcnn, make_rpn, small_backbones

OWN = Preprocessing("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
STAGES = {"loc_rpn": (make_rpn, load_rpn), "loc_rcnn": (make_rcnn, load_rcnn)}


@pytest.fixture(autouse=True)
def _small():
    with small_backbones():
        yield


def saved(kind, path):
    model = STAGES[kind][0](rcnn={"padding": 7})
    model.backbone.preprocessing = OWN
    write_checkpoint(loc_metadata(model, kind), model.state_dict(), path)
    return model


@pytest.fixture(params=STAGES)
def kind(request):
    return request.param


def test_a_stage_comes_back_whole(kind, tmp_path):
    model = saved(kind, tmp_path / "model.pt")
    loaded = STAGES[kind][1](tmp_path / "model.pt")
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    assert (loaded.class_names, loaded.config, loaded.preprocessing, loaded.training) == (NAMES, model.config, OWN, False)
    assert loaded.config.rcnn.padding == 7


def test_the_other_stage_is_refused(kind, tmp_path):
    model = saved(kind, tmp_path / "model.pt")
    other = next(load for name, (_, load) in STAGES.items() if name != kind)
    with pytest.raises(CheckpointError, match=f"is a {kind}'s checkpoint; a loc_"):
        other(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=f"is a {kind}'s checkpoint; a classifier's is needed here"):
        initialise(model, tmp_path / "model.pt")


def change(path, edit):
    contents = torch.load(path, weights_only=True)
    edit(contents)
    save_checkpoint(contents, path)
    return path


def test_a_config_that_cannot_be_read_is_refused(kind, tmp_path):
    saved(kind, tmp_path / "model.pt")
    path = change(tmp_path / "model.pt", lambda contents: contents["metadata"]["config"]["rpn"].update(anchor_sizes=[]))
    with pytest.raises(CheckpointError, match="model.pt holds a config that this version cannot read: .*anchor_sizes"):
        STAGES[kind][1](path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda contents: contents["metadata"].update(class_names=["a", "b"]),
        lambda contents: contents["metadata"].update(class_names=[]),
        lambda contents: contents["model"].pop("head.deltas.weight"),
        lambda contents: contents["model"].update({"head.scores.weight": torch.zeros(())}),
    ],
    ids=["fewer classes", "no classes", "no layer", "a layer without rows"],
)
def test_a_head_that_does_not_fit_is_refused_before_the_network_is_built(kind, tmp_path, edit):
    saved(kind, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="does not fit its own config: 'head.*rows; take another copy"):
        STAGES[kind][1](change(tmp_path / "model.pt", edit))


def test_other_anchors_than_the_weights_are_refused(tmp_path):
    saved("loc_rpn", tmp_path / "model.pt")
    path = change(tmp_path / "model.pt", lambda contents: contents["metadata"]["config"]["rpn"].update(anchor_sizes=[24.0]))
    with pytest.raises(CheckpointError, match="its 3 classes and 2 anchors per cell ask for 6 rows"):
        load_rpn(path)
