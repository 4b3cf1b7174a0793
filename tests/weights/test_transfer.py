"""Starting a detector from one of other classes, context or anchors: every row and column by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from backbones import Preprocessing, build_backbone
from backbones.errors import CheckpointError
from detection import Detector, load_detector
from detection.config.class_lists import COCO_CLASSES, VOC_CLASSES
from detection.structures import Batch, Target
from detection.weights.checkpoint import detector_metadata, initialise_detector, require_fitting_heads, write_checkpoint
from detection.weights.transfer import matching_classes
from tests.small_detector import detector, noise, pyramid
from tests.there import there


def trained(folder: Path, **sections: dict[str, Any]) -> tuple[Detector, Path]:
    """A detector with box layers of no small numbers, and its checkpoint."""
    torch.manual_seed(3)
    model = detector(**sections)
    for layer in (model.roi_head.class_scores, model.roi_head.box_deltas):
        torch.nn.init.normal_(layer.weight, std=0.1)
        torch.nn.init.normal_(layer.bias)
    write_checkpoint(detector_metadata(model), model.state_dict(), folder / "source.pt")
    return model, folder / "source.pt"


def test_every_voc_class_is_one_of_coco():
    places = matching_classes(COCO_CLASSES, VOC_CLASSES)
    assert None not in places
    pairs = {name: COCO_CLASSES[place] for name, place in zip(VOC_CLASSES, places, strict=True) if place is not None}
    assert {name: other for name, other in pairs.items() if name != other} == {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }


def test_rows_follow_their_classes(tmp_path):
    source, file = trained(tmp_path, data={"classes": ["airplane", "cat", "dog"]})
    model = detector(data={"classes": ["dog", "cow", "aeroplane"]})
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    said = initialise_detector(model, file)
    assert "2 of 3 classes keep their rows of the box layers (airplane as aeroplane), cow start from random numbers" in said
    assert f"the other weights start from the detector {file}" in said
    for part in ("weight", "bias"):
        theirs, ours = (m.roi_head.class_scores.get_parameter(part) for m in (source, model))
        torch.testing.assert_close(ours[[0, 2, 3]], theirs[[2, 0, 3]], rtol=0, atol=0)
        torch.testing.assert_close(ours[1], fresh[f"roi_head.class_scores.{part}"][1], rtol=0, atol=0)
        theirs, ours = (m.roi_head.box_deltas.get_parameter(part) for m in (source, model))
        torch.testing.assert_close(ours[:4], theirs[8:], rtol=0, atol=0)
        torch.testing.assert_close(ours[4:8], fresh[f"roi_head.box_deltas.{part}"][4:8], rtol=0, atol=0)
        torch.testing.assert_close(ours[8:], theirs[:4], rtol=0, atol=0)
    for name, value in source.state_dict().items():
        if not name.startswith(("roi_head.class_scores", "roi_head.box_deltas")):
            torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


def test_the_same_classes_in_another_order_predict_the_same(tmp_path):
    source, file = trained(tmp_path, data={"classes": ["cat", "dog"]})
    model = detector(data={"classes": ["dog", "cat"]})
    assert "2 of 2 classes" in initialise_detector(model, file)
    image = noise(64, 80)
    found, expected = model.predict([image])[0], source.predict([image])[0]
    torch.testing.assert_close(found.scores, expected.scores)
    assert [model.class_names[label] for label in found.labels] == [source.class_names[label] for label in expected.labels]


def test_context_that_is_added_changes_nothing_at_first(tmp_path):
    source, file = trained(tmp_path)
    model = detector(roi={"context": True})
    assert "context start at zero" in initialise_detector(model, file)
    features, regions = torch.rand(1, 256, 4, 5), [torch.tensor([[4.0, 8, 40, 60], [10, 10, 70, 30]])]
    with torch.inference_mode():
        for found, expected in zip(
            model.eval().roi_head((features,), regions, [(64, 80)]),
            source.eval().roi_head((features,), regions, [(64, 80)]),
            strict=True,
        ):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    target = Target(torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([0]), torch.zeros(0, 4))
    batch = Batch(noise(64, 80)[None], [(64, 80)], [target])
    losses = []
    for network in (model, source):
        torch.manual_seed(0)
        losses.append(network.train()(batch))
    for name, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][name], rtol=1e-5, atol=1e-6)
    losses[0]["loss_class"].backward()
    gradient = model.roi_head.class_scores.weight.grad
    assert gradient is not None and gradient[:, 512:].abs().max() > 0


def test_context_that_is_taken_away(tmp_path):
    source, file = trained(tmp_path, roi={"context": True})
    model = detector(data={"classes": ["dog"]})
    said = initialise_detector(model, file)
    assert "context are left out" in said and "1 of 1 classes" in said
    torch.testing.assert_close(model.roi_head.class_scores.weight, source.roi_head.class_scores.weight[[1, 2], :512])


@pytest.mark.parametrize("anchors", [{"anchor_sizes": [8, 16]}, {"anchor_sizes": [16, 32, 64]}, {"anchor_ratios": [1.0]}])
def test_other_anchors_start_the_rpns_output_anew(tmp_path, anchors):
    source, file = trained(tmp_path)
    model = detector(rpn=anchors)
    before = model.rpn.deltas.weight.clone()
    assert "the RPN's output layers start from random numbers" in initialise_detector(model, file)
    torch.testing.assert_close(model.rpn.deltas.weight, before, rtol=0, atol=0)
    torch.testing.assert_close(model.rpn.conv.weight, source.rpn.conv.weight, rtol=0, atol=0)


def test_another_width_is_refused(tmp_path):
    _, file = trained(tmp_path)
    with pytest.raises(CheckpointError, match="rpn.conv.weight' has shape"):
        initialise_detector(detector(rpn={"channels": 16}), file)


def backbone_of(model: Detector) -> dict[str, torch.Tensor]:
    """A detector's backbone by its own names."""
    if hasattr(model.trunk, "neck"):
        return dict(model.trunk.get_submodule("backbone").state_dict())
    return model.trunk.state_dict() | model.roi_head.conv5.state_dict()


@pytest.mark.parametrize(("build", "source", "neck"), [(pyramid, detector, "none"), (detector, pyramid, "fpn")])
def test_a_detector_with_another_neck_gives_its_backbone(tmp_path, build, source, neck):
    theirs = source(data={"classes": ["bird"]})
    theirs.preprocessing = Preprocessing("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    write_checkpoint(detector_metadata(theirs), theirs.state_dict(), tmp_path / "source.pt")
    model = build()
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    assert initialise_detector(model, tmp_path / "source.pt") == (
        f"the backbone starts from the detector {tmp_path / 'source.pt'}, all else from random numbers, as that has "
        f"model.neck={neck}; optimizer, schedule and data start afresh"
    )
    torch.testing.assert_close(backbone_of(model), backbone_of(theirs), rtol=0, atol=0)
    assert model.preprocessing == theirs.preprocessing
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, fresh[key])}
    assert changed and all(key.startswith(("trunk.", "roi_head.conv5.layer4")) and ".neck." not in key for key in changed)


def test_a_pyramid_without_one_of_its_backbones_layers_is_refused(tmp_path):
    theirs = pyramid()
    state = theirs.state_dict()
    del state["trunk.backbone.layer4.0.conv1.weight"]
    write_checkpoint(detector_metadata(theirs), state, tmp_path / "source.pt")
    with pytest.raises(CheckpointError, match=r"source.pt does not fit the model: 1 missing keys: .*layer4.0.conv1.weight"):
        initialise_detector(detector(), tmp_path / "source.pt")


def test_a_classifier_starts_a_pyramids_backbone(tmp_path):
    classifier = build_backbone("resnet18", num_classes=3)
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    model = pyramid()
    assert "the backbone starts from the plain weights" in initialise_detector(model, tmp_path / "resnet18.pth")
    for name, value in backbone_of(model).items():
        torch.testing.assert_close(value, classifier.state_dict()[name], rtol=0, atol=0)


def test_a_pyramid_of_other_classes_and_anchors_keeps_the_rest(tmp_path):
    theirs = pyramid()
    write_checkpoint(detector_metadata(theirs), theirs.state_dict(), tmp_path / "source.pt")
    model = pyramid(data={"classes": ["dog", "cow"]}, rpn={"anchor_sizes": [16, 32, 64, 128, 256]})
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    said = initialise_detector(model, tmp_path / "source.pt")
    assert "1 of 2 classes keep their rows of the box layers, cow start from random numbers" in said
    assert "the RPN's output layers start from random numbers" in said
    found = model.state_dict()
    torch.testing.assert_close(found["roi_head.class_scores.weight"][0], theirs.roi_head.class_scores.weight[1], rtol=0, atol=0)
    for key, value in theirs.state_dict().items():
        if key.startswith(("rpn.objectness", "rpn.deltas")):
            torch.testing.assert_close(found[key], fresh[key], rtol=0, atol=0)
        elif not key.startswith(("roi_head.class_scores", "roi_head.box_deltas")):
            torch.testing.assert_close(found[key], value, rtol=0, atol=0)


@pytest.mark.parametrize(("key", "value"), [("channels", 8), ("head_channels", 8), ("head_convs", 1), ("norm", "bn")])
def test_another_pyramid_is_refused_by_its_key(tmp_path, key, value):
    theirs = pyramid()
    write_checkpoint(detector_metadata(theirs), theirs.state_dict(), tmp_path / "source.pt")
    with pytest.raises(CheckpointError, match=rf"source.pt was trained with fpn.{key}=.*, not .*{value}.*: set it alike"):
        initialise_detector(pyramid(fpn={key: value}), tmp_path / "source.pt")


def test_a_pyramid_comes_back_whole_and_no_other_is_made_of_it(tmp_path):
    theirs = pyramid()
    write_checkpoint(detector_metadata(theirs), theirs.state_dict(), tmp_path / "source.pt")
    torch.testing.assert_close(load_detector(tmp_path / "source.pt").state_dict(), theirs.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="trained with model.neck='?fpn'?, not '?none'?: set it alike"):
        load_detector(tmp_path / "source.pt", config=detector().config)
    with pytest.raises(CheckpointError, match=r"'rpn.objectness.weight' has shape \(6, .*its own config asks for 3 rows"):
        state = theirs.state_dict() | {"rpn.objectness.weight": torch.zeros(6, 32, 1, 1)}
        write_checkpoint(detector_metadata(theirs), state, tmp_path / "source.pt")
        load_detector(tmp_path / "source.pt")


MASKS: dict[str, dict[str, Any]] = {"model": {"mask": True}, "mask": {"channels": 8}}
PREDICTOR = "roi_head.mask_head.predictor.weight"


def test_masks_follow_their_classes(tmp_path):
    source, file = trained(tmp_path, **MASKS, data={"classes": ["cat", "dog"]})
    model = detector(**MASKS, data={"classes": ["bird", "dog", "cat"]})
    fresh = model.state_dict()[PREDICTOR].clone()
    initialise_detector(model, file)
    theirs, ours = source.state_dict()[PREDICTOR], model.state_dict()[PREDICTOR]
    assert torch.equal(ours[[1, 2]], theirs[[1, 0]]) and torch.equal(ours[0], fresh[0])
    assert torch.equal(there(model.roi_head.mask_head).deconv.weight, there(source.roi_head.mask_head).deconv.weight)


def test_masks_that_are_added_or_left_out(tmp_path):
    plain, file = trained(tmp_path)
    model = detector(**MASKS)
    fresh = model.state_dict()[PREDICTOR].clone()
    assert "the mask head starts from random numbers" in initialise_detector(model, file)
    assert torch.equal(model.state_dict()[PREDICTOR], fresh)
    assert torch.equal(model.roi_head.class_scores.weight, plain.roi_head.class_scores.weight)
    _, file = trained(tmp_path, **MASKS)
    assert "the mask head is left out" in initialise_detector(detector(), file)


def test_a_mask_head_of_other_classes_is_refused_before_it_is_built(tmp_path):
    source, file = trained(tmp_path, **MASKS)
    state = source.state_dict()
    require_fitting_heads(state, source.config, file)
    with pytest.raises(CheckpointError, match="predictor.weight' has shape .*its own config asks for 2 rows"):
        require_fitting_heads(state | {PREDICTOR: state[PREDICTOR][:1]}, source.config, file)


@pytest.mark.parametrize(("found", "wanted"), [(3, 0), (0, 2), (3, 1)])
def test_outputs_that_are_never_predicted(tmp_path, found, wanted):
    source, file = trained(tmp_path, roi={"unused_outputs": found}, data={"classes": ["cat", "dog"]})
    model = detector(roi={"unused_outputs": wanted}, data={"classes": ["dog", "cat"]})
    said = initialise_detector(model, file)
    assert f"{abs(found - wanted)} outputs that are never predicted (roi.unused_outputs)" in said
    theirs, ours = source.roi_head.class_scores.weight, model.roi_head.class_scores.weight
    shared = min(found, wanted)
    assert ours.shape[0] == 3 + wanted
    torch.testing.assert_close(ours[: 3 + shared], theirs[[1, 0, 2, *range(3, 3 + shared)]], rtol=0, atol=0)
