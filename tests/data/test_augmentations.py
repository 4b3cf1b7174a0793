"""Every transform that albumentations exports works or is refused by name; the paper's own augmentations."""

import inspect
import warnings
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.data.augmentations import build_augmentation, find_transform, reseed
from detection.data.paper_transforms import EIGENVALUES, EIGENVECTORS, PAPER_TRANSFORMS
from detection.data.transforms import augment
from detection.errors import ConfigError
from detection.structures import Target

NAMES = sorted({*PAPER_TRANSFORMS, *(name for name in dir(A) if find_transform(name))})
SIZES = {"height": 32, "width": 40}
PARTS: list[dict[str, Any]] = [{"HorizontalFlip": {}}, {"Blur": {}}]
PARAMETERS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(["AtLeastOneBBoxRandomCrop", "CenterCrop", "RandomCrop", "RandomSizedBBoxSafeCrop", "Resize"], SIZES),
    **dict.fromkeys(["Compose", "OneOf", "OneOrOther", "RandomOrder", "Sequential"], {"transforms": PARTS}),
    **dict.fromkeys(["LongestMaxSize", "SmallestMaxSize"], {"max_size": 50}),
    "Crop": {"x_min": 9, "y_min": 5, "x_max": 80, "y_max": 70},
    "CropAndPad": {"px": [-3, 9]},
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 5},
    "RandomResizedCrop": {"size": [32, 40]},
    "RandomShorterSide": {"low": 40, "high": 60},
    "RandomSizedCrop": {"size": [32, 40], "min_max_height": [20, 60]},
    "SelectiveChannelTransform": {"transforms": [{"Blur": {}}], "channels": [0, 2]},
    "SomeOf": {"transforms": PARTS, "n": 2},
}
REFUSED = {
    "BaseCompose": "only the base", "BasicTransform": "only the base", "DualTransform": "only the base",
    "ImageOnlyTransform": "only the base", "Transform3D": "only the base",
    "CenterCrop3D": "volumes", "CoarseDropout3D": "volumes", "CubicSymmetry": "volumes", "Pad3D": "volumes",
    "PadIfNeeded3D": "volumes", "RandomCrop3D": "volumes", "ToTensor3D": "tensor", "ToTensorV2": "tensor",
    "FDA": "needs fda_metadata", "HistogramMatching": "needs hm_metadata", "Mosaic": "needs mosaic_metadata",
    "OverlayElements": "needs overlay_metadata", "PixelDistributionAdaptation": "needs pda_metadata",
    "TextImage": "needs textimage_metadata", "RandomCropNearBBox": "needs cropping_bbox", "MaskDropout": "needs mask",
    "ConstrainedCoarseDropout": "needs masks", "CropNonEmptyMaskIfExists": "needs masks", "Lambda": "needs functions",
    "FromFloat": "floating-point", "Normalize": "floating-point", "ToFloat": "floating-point", "ToRGB": "changes nothing",
    "ReplayCompose": "write Compose",
}  # fmt: skip
WITHOUT_BOXES_ONLY, WITH_BOXES_ONLY = {"Morphological"}, {"BBoxSafeRandomCrop", "RandomSizedBBoxSafeCrop"}
NEEDED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(["CenterCrop3D", "RandomCrop3D"], {"size": [1, 2, 3]}),
    "Pad3D": {"padding": 1},
    "PadIfNeeded3D": {"min_zyx": [1, 2, 3]},
    "TextImage": {"font_path": "a.ttf"},
}

PICTURE = np.random.default_rng(1).integers(0, 256, (97, 131, 3), dtype=np.uint8)
SLOW = {"PiecewiseAffine", "Superpixels"}
TARGETS: dict[str, list[list[float]]] = {
    "boxes": [[10, 5, 60, 45], [30, 30, 31, 31], [3.5, 3.5, 90.25, 80.75]],
    "at the border": [[0, 0, 131, 97], [100, 80, 131, 97], [0, 0, 1, 97]],
    "none": [],
}


def target(boxes) -> Target:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(boxes, torch.arange(len(boxes)), boxes[:1])


def always(name):
    return {**PARAMETERS.get(name, {}), "p": 1.0}


@pytest.mark.parametrize("name", sorted({*NAMES} - {*REFUSED} - WITHOUT_BOXES_ONLY))
def test_a_transform_works_with_boxes(name):
    """Also with none, and with boxes at the border; the same again for the same seed, and without a warning."""
    augmentation = build_augmentation([{name: always(name)}])
    for boxes in TARGETS.values():
        for seed in range(1 if name in SLOW else 3):
            found = []
            for _ in range(2):
                reseed(augmentation, seed)
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    found.append(augment(PICTURE.copy(), target(boxes), augmentation))
            (image, first), (again, second) = found
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert np.array_equal(image, again)
            assert torch.equal(first.boxes, second.boxes) and torch.equal(first.ignored, second.ignored)
            # A shuffled grid cuts objects into pieces, each with its box.
            assert len(first.boxes) == len(first.labels) and (len(first.boxes) <= len(boxes) or name == "RandomGridShuffle")
            width, height = image.shape[1], image.shape[0]
            limit = torch.tensor([width, height, width, height])
            assert torch.isfinite(first.boxes).all() and (first.boxes >= 0).all() and (first.boxes <= limit).all()


@pytest.mark.parametrize("name", sorted({*NAMES} - {*REFUSED} - WITH_BOXES_ONLY))
def test_a_transform_works_without_boxes(name):
    first, again = (augmented(name, always(name), PICTURE.copy()) for _ in range(2))
    assert first.dtype == np.uint8 and first.ndim == 3 and first.shape[2] == 3 and np.array_equal(first, again)


@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_transform_that_cannot_work_is_refused_by_name(name, boxes):
    for item in ({name: NEEDED.get(name, {})}, {"OneOf": {"transforms": [{name: NEEDED.get(name, {})}]}}):
        with pytest.raises(ConfigError, match=f"data.augmentations: augmentation '{name}' .*{REFUSED[name]}"):
            build_augmentation([item], boxes=boxes)


def test_some_are_for_images_with_boxes_or_without():
    for name in WITH_BOXES_ONLY:
        with pytest.raises(ConfigError, match=f"'{name}' needs boxes"):
            build_augmentation([{name: always(name)}], boxes=False)
    for name in WITHOUT_BOXES_ONLY:
        with pytest.raises(ConfigError, match=f"'{name}' moves boxes wrongly"):
            build_augmentation([{name: always(name)}])


def test_the_table_names_every_export():
    assert {*REFUSED, *PARAMETERS} <= {*NAMES} and len(NAMES) > 100


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"ToGray": {"num_output_channels": 1}}, r"'ToGray' must give \(H, W, 3\) .* not \(96, 128\)"),
        ({"PadIfNeeded": {"min_height": 200, "min_width": 200, "fill": [1, 2, 3, 4, 5]}}, "PadIfNeeded"),
        ({"Resize": {"height": 10**9, "width": 10}}, "height must be between"),
        ({"Resize": {"height": 10**5000, "width": 10}}, "height must be between .* a number of 500. digits"),
        ({"RandomScale": {"scale_limit": float("inf")}}, "scale_limit must be between"),
        ({"Blur": {"blur_limit": [float("nan"), 3]}}, "blur_limit must be between"),
        ({"Blur": {"blur_limit": 4}}, "must be odd"),
        ({"HorizontalFlip": {"p": -1}}, "p: Input should be greater than or equal to 0, got -1"),
        ({"HorizontalFlip": [1]}, "its parameters must be"),
        ({"Blur": {7: 3}}, "Blur"),
        ({"OneOf": {"transforms": []}}, "at least one"),
        ({"OneOf": {"transforms": {"Blur": {}}}}, "at least one"),
        ({"OneOf": {"transforms": [{"Blur": {"p": 0}}]}}, "OneOf.*ZeroDivisionError"),
        ({"OneOf": {"transforms": ["Blur"]}}, "an item must be"),
        ({"OneOf": {"transforms": [{}]}}, "an item must be"),
        ({"OneOf": {"transforms": PARTS, "p": 2}}, "p must be between 0 and 1"),
        ({"OneOf": {"transforms": PARTS, "n": 2}}, "unknown parameter 'n'"),
        ({"SomeOf": {"transforms": PARTS, "n": 3}}, "is greater than number of transforms"),
        ({"SomeOf": {"transforms": PARTS, "n": 10**9, "replace": True}}, "SomeOf.*n must be"),
        ({"SomeOf": {"transforms": PARTS, "n": 0}}, "SomeOf.*n must be"),
        ({"OneOrOther": {"transforms": PARTS * 2}}, "needs two transforms"),
        ({"OneOrOther": {"first": PARTS[0], "second": PARTS[1]}}, "unknown parameter 'first'"),
        ({"Compose": {"transforms": PARTS, "seed": 3}}, "unknown parameter 'seed'"),
        ({"SelectiveChannelTransform": {"transforms": PARTS}}, "cannot hold HorizontalFlip"),
        ({"SelectiveChannelTransform": {"transforms": [{"Blur": {}}], "channels": [3]}}, "channels must be"),
        (
            {"SelectiveChannelTransform": {"transforms": [{"Downscale": {}}, {"ToGray": {}}], "channels": [0, 1]}},
            "Selective|ToGray",
        ),
        ({"CopyPaste": {}}, "unknown augmentation 'CopyPaste'"),
        ({"TemplateTransform": {}}, "unknown augmentation 'TemplateTransform'"),
        ({"Compose": {"transforms": [{"GaussNoise": {"var_limit": 3}}]}}, "'var_limit' are not valid"),
        ({"AlexNetColor": {"std": -1}}, "AlexNetColor.*std"),
        ({"core": {}}, "unknown augmentation 'core'"),
        ({"\x1b[2J": {}}, r"unknown augmentation '\\x1b\[2J'"),
    ],
)
@pytest.mark.parametrize("boxes", [True, False])
def test_wrong_parameters_are_one_line(item, message, boxes):
    with warnings.catch_warnings(), pytest.raises(ConfigError, match=message) as caught:
        warnings.simplefilter("error")
        build_augmentation([item], boxes=boxes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_nesting_has_an_end():
    item: dict[str, Any] = {"Blur": {}}
    for _ in range(3000):
        item = {"OneOf": {"transforms": [item]}}
    with pytest.raises(ConfigError, match="nested deeper than 8"):
        build_augmentation([item])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.text(max_size=5) | st.just(10**30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(NAMES), st.data())
@settings(max_examples=150)
def test_any_value_of_a_parameter_works_or_is_one_line(name, data):
    key = data.draw(st.sampled_from([*inspect.signature(find_transform(name) or dict).parameters]))
    try:
        augmentation = build_augmentation([{name: {**PARAMETERS.get(name, {}), key: data.draw(values)}}])
        reseed(augmentation, 0)
        augment(PICTURE, target(TARGETS["boxes"]), augmentation, "a.jpg")
    except ConfigError as error:
        assert "\n" not in str(error) and name in str(error) and len(str(error)) < 1000


def augmented(name, options, image, seed=3):
    augmentation = build_augmentation([{name: options}], boxes=False)
    reseed(augmentation, seed)
    return augmentation(image=image)["image"]


def test_the_components_are_orthonormal_and_ordered():
    np.testing.assert_allclose(EIGENVECTORS.T @ EIGENVECTORS, np.eye(3), atol=2e-3)
    assert (np.diff(EIGENVALUES) < 0).all()


def test_all_pixels_shift_alike_along_the_principal_colours():
    image = np.full((5, 7, 3), 128, np.uint8)
    shifts = np.stack([augmented("AlexNetColor", {"std": 1.0}, image, seed)[0, 0].astype(float) - 128 for seed in range(300)])
    assert (augmented("AlexNetColor", {"std": 1.0}, image) == augmented("AlexNetColor", {"std": 1.0}, image)).all()
    # The first component, nearly grey, has almost all of the variance.
    along = shifts @ EIGENVECTORS / 255
    assert along[:, 0].std() == pytest.approx(EIGENVALUES[0], rel=0.15)
    assert along[:, 1].std() == pytest.approx(EIGENVALUES[1], rel=0.25)


def test_any_shorter_side_of_the_range_comes():
    image = np.zeros((40, 60, 3), np.uint8)
    sides = {min(augmented("RandomShorterSide", {"low": 20, "high": 23}, image, seed).shape[:2]) for seed in range(60)}
    assert sides == {20, 21, 22, 23}


@pytest.mark.parametrize("options", [{"low": 30, "high": 20}, {"height": 3}])
def test_a_wrong_range_is_one_line(options):
    with pytest.raises(ConfigError, match="RandomShorterSide"):
        build_augmentation([{"RandomShorterSide": options}], boxes=False)
