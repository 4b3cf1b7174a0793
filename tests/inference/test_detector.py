"""Predicting: lists equal singles, whatever is combined; one scale, or a network in ensemble with itself, changes nothing."""

import numpy as np
import pytest
import torch
from PIL import Image

from detection import Detector, Ensemble
from detection.errors import CheckpointError, ConfigError, DatasetError
from detection.inference.detector import detect_in_views, views_of
from detection.inference.select import to_image_pixels
from detection.inference.views import View, classify_in_views
from detection.modeling.boxes import mirror_boxes
from detection.resize import resize_image, resized_size
from detection.structures import Batch, Detections
from tests.small_detector import detector, noise, select_one

EVERYTHING = {
    "refinement_passes": 1,
    "voting": True,
    "scales": [48, 64, 96],
    "scale_area": 24,
    "flip": True,
}


def confident(seed: int = 0, **sections: dict) -> Detector:
    """One whose random scores differ from class to class."""
    torch.manual_seed(seed)
    model = detector(**sections)
    torch.nn.init.normal_(model.roi_head.class_scores.weight, std=0.05)
    return model


def assert_same(found: Detections, expected: Detections, exactly: bool = False) -> None:
    assert len(found) == len(expected) > 0
    rtol, atol = (0, 0) if exactly else (1e-4, 1e-3)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=rtol, atol=atol)
    torch.testing.assert_close(found.scores, expected.scores, rtol=rtol, atol=atol / 100)
    assert found.labels.tolist() == expected.labels.tolist()


def test_predict_is_the_composition_of_the_steps():
    model = confident().eval()
    image = noise(70, 50)
    size_hw = resized_size((70, 50), 64, 100)
    array = resize_image(image.permute(1, 2, 0).numpy(), size_hw)
    batch = Batch(torch.from_numpy(array).permute(2, 0, 1)[None], [size_hw])
    with torch.inference_mode():
        features = model.extract(batch)
        regions = model.classify(features, model.propose(features, [size_hw]), [size_hw])
        found = select_one(regions.scores[0], regions.boxes[0], size_hw, model.config.test, model.score_threshold)
        expected = to_image_pixels(found, size_hw, (70, 50))
    assert_same(model.predict([image])[0], expected, exactly=True)


@pytest.mark.parametrize("test", [{}, EVERYTHING], ids=["baseline", "everything"])
@pytest.mark.parametrize("context", [False, True], ids=["alone", "context"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_predict_of_a_list_equals_predict_of_each(batch_size, context, test):
    model = confident(roi={"context": context}, test={"batch_size": batch_size, **test})
    images = [noise(64, 80), noise(70, 50), noise(64, 80), noise(33, 57)]
    together = model.predict(images)
    for image, found in zip(images, together, strict=True):
        alone = model.predict([image])[0]
        assert_same(found, alone)
        height, width = image.shape[1:]
        assert (found.boxes >= 0).all() and (found.boxes[:, 2] <= width).all() and (found.boxes[:, 3] <= height).all()


def test_predict_takes_arrays_and_tensors_and_keeps_the_mode():
    model = detector().train()
    image = noise(64, 80)
    a, b = model.predict([image, image.permute(1, 2, 0).numpy()])
    torch.testing.assert_close(a.boxes, b.boxes)
    assert model.training and model.predict([]) == []


def test_predict_evaluates_and_leaves_each_module_in_its_mode():
    model, image = confident(model={"norm": "bn"}).eval(), noise(64, 80)
    expected = model.predict([image])
    model.trunk.train()  # the whole model's own mode stays evaluation
    modes = {name: module.training for name, module in model.named_modules()}
    assert_same(model.predict([image])[0], expected[0], exactly=True)
    assert {name: module.training for name, module in model.named_modules()} == modes and any(modes.values())


def test_predict_reads_files(tmp_path):
    model = confident()
    image = noise(64, 80).permute(1, 2, 0).numpy()
    file = tmp_path / "a.png"
    Image.fromarray(image).save(file)
    from_path, from_string, from_pixels = model.predict([file, str(file), image])
    assert_same(from_path, from_pixels, exactly=True)
    assert_same(from_string, from_pixels, exactly=True)
    Ensemble([model, model]).predict([file])


def test_predict_names_a_file_that_it_cannot_read(tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    with pytest.raises(DatasetError, match=r"missing\.jpg: No such file"):
        detector().predict([tmp_path / "missing.jpg"])
    with pytest.raises(DatasetError, match=r"text\.jpg is not an image"):
        detector().predict([str(text)])


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)])
def test_predict_refuses_what_is_no_image(image):
    with pytest.raises(ValueError, match="uint8 RGB"):
        detector().predict([image])


@pytest.mark.parametrize("test", [{}, EVERYTHING], ids=["baseline", "everything"])
def test_an_image_smaller_than_the_stride_gives_a_result(test):
    assert len(detector(rpn={"min_size": 1000.0}, roi={"context": True}, test=test).predict([noise(5, 7)])[0]) == 0
    detector(test=test).predict([noise(5, 7), noise(1, 1)])


@pytest.mark.parametrize("merge", ["pool", "conv5"])
@pytest.mark.parametrize("context", [False, True])
def test_a_single_scale_is_ordinary_inference(merge, context):
    ordinary = confident(roi={"context": context})
    single = confident(roi={"context": context}, test={"scales": [64], "scale_merge": merge})
    image = noise(70, 50)
    assert_same(single.predict([image])[0], ordinary.predict([image])[0], exactly=True)


@pytest.mark.parametrize("pooling", ["max", "align"])
@pytest.mark.parametrize("context", [False, True])
def test_one_view_at_one_scale_is_ordinary_inference(context, pooling):
    model = confident(roi={"context": context, "pooling": pooling}, test={"batch_size": 2}).eval()
    arrays = [noise(70, 50).permute(1, 2, 0).numpy() for _ in range(2)]
    with torch.inference_mode():
        found = detect_in_views([View(model, arrays)])
    for ours, expected in zip(found, model.predict(arrays), strict=True):
        assert_same(ours, expected, exactly=True)


@pytest.mark.parametrize("test", [{}, EVERYTHING], ids=["baseline", "everything"])
@pytest.mark.parametrize("copies", [2, 3])
def test_an_ensemble_with_itself_is_itself(copies, test):
    model = confident(test=test)
    images = [noise(70, 50), noise(64, 80)]
    for found, expected in zip(Ensemble([model] * copies).predict(images), model.predict(images), strict=True):
        assert_same(found, expected, exactly=copies == 2 and not test)


def test_an_ensemble_of_other_depths_and_sizes_averages_scores_and_boxes():
    models = [confident(), confident(1, model={"backbone": "resnet34"}, test={"shorter_side": 96, "longer_side": 150})]
    array = noise(64, 80).permute(1, 2, 0).numpy()
    regions = torch.tensor([[4.0, 8, 40, 60], [10, 10, 70, 30]])
    with torch.inference_mode():
        views = views_of([model.eval() for model in models], [array])
        found = classify_in_views(views, [regions])
        first, second = (view.classify([regions * (view.size_hw[0] / 64)]) for view in views)
    torch.testing.assert_close(found.scores[0], (first.scores[0] + second.scores[0]) / 2)
    torch.testing.assert_close(found.boxes[0], (first.boxes[0] + second.boxes[0] / 1.5) / 2)
    assert len(Ensemble(models).predict([array])[0]) > 0


def test_members_of_an_ensemble_know_the_same_classes():
    with pytest.raises(CheckpointError, match="member 2 of the ensemble .*dog"):
        Ensemble([detector(), detector(data={"classes": ["cat"]})])


def test_flipping_makes_an_image_and_its_mirror_image_alike():
    model = confident(test={"flip": True}).eval()
    array = noise(64, 80).permute(1, 2, 0).numpy()
    regions = torch.tensor([[4.0, 8, 40, 60], [10, 10, 70, 30]])
    with torch.inference_mode():
        found = classify_in_views(views_of([model], [array]), [regions])
        mirrored = np.ascontiguousarray(array[:, ::-1])
        other = classify_in_views(views_of([model], [mirrored]), [mirror_boxes(regions, 80)])
        plain = classify_in_views([View(model, [array])], [regions])
    torch.testing.assert_close(found.scores[0], other.scores[0])
    torch.testing.assert_close(found.boxes[0], mirror_boxes(other.boxes[0], 80))
    assert not torch.allclose(found.scores[0], plain.scores[0])


def test_memory_that_runs_out_names_three_keys(monkeypatch):
    model = confident().eval()
    monkeypatch.setattr(type(model), "extract", lambda *args: torch.empty(2**60, dtype=torch.uint8, device="cpu"))
    with pytest.raises(ConfigError, match=r"Lower test.batch_size \(now 1\), test.shorter_side .*, or rpn.post_nms_test"):
        model.predict([noise(70, 50)])
