"""What the RPN sees of an image, and that boxes of a view come back to their place in the image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detection.config import LocTestConfig
from detection.localisation.views import LocView, views_of
from detection.pretraining.views import full_image_views, ten_crops
from tests.localisation.small_localiser import noise

CENTER, DENSE = LocTestConfig(views="center"), LocTestConfig(views="dense", scales=(224, 256), longer_side=400)

sides = st.integers(40, 900)
views = st.builds(
    lambda height, width, test, place: views_of((height, width), test, 224)[place],
    sides,
    sides,
    st.sampled_from([CENTER, DENSE, CENTER.model_copy(update={"flip": True}), DENSE.model_copy(update={"flip": True})]),
    st.sampled_from([0, -1]),
)


def from_image(view: LocView, x: float, y: float) -> tuple[float, float]:
    """A point of the image in the view, step by step."""
    x, y = x * view.resized_hw[1] / view.image_hw[1], y * view.resized_hw[0] / view.image_hw[0]
    x, y = x - view.corner[0], y - view.corner[1]
    return (view.size_hw[1] - x, y) if view.mirrored else (x, y)


@given(views, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_box_seen_in_a_view_comes_back(view, fractions):
    height, width = view.image_hw
    x1, x2 = sorted(width * part for part in fractions[:2])
    y1, y2 = sorted(height * part for part in fractions[2:])
    (a, b), (c, d) = from_image(view, x1, y1), from_image(view, x2, y2)
    seen = torch.tensor([[min(a, c), b, max(a, c), d]])
    torch.testing.assert_close(view.to_image(seen), torch.tensor([[x1, y1, x2, y2]]), rtol=0, atol=2e-3)


@given(views)
def test_boxes_are_clipped_to_the_image_and_not_to_the_view(view):
    (image_height, image_width), (height, width) = view.image_hw, view.size_hw
    far = torch.tensor([-1e4, -1e4, 1e4, 1e4])
    assert view.to_image(far).tolist() == [0, 0, image_width, image_height]
    x1, y1, x2, y2 = view.to_image(torch.tensor([0.0, 0, width, height])).tolist()
    assert 0 <= x1 < x2 <= image_width and 0 <= y1 < y2 <= image_height


@pytest.mark.parametrize("size_hw", [(375, 500), (501, 333), (224, 224), (60, 91), (90, 200)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_rectangle_is_where_its_box_says(size_hw, flip):
    """A rectangle painted into the image, found again in the pixels of each view, and mapped back."""
    image = torch.zeros((3, *size_hw), dtype=torch.uint8)
    height, width = size_hw
    y1, y2, x1, x2 = int(height * 0.4), int(height * 0.7) + 1, int(width * 0.45), int(width * 0.6) + 1
    image[:, y1:y2, x1:x2] = 255
    for test in (CENTER, DENSE):
        for view in views_of(size_hw, test.model_copy(update={"flip": flip}), 224):
            pixels = view.of_image(image)
            assert pixels.shape == (3, *view.size_hw)
            ys, xs = (pixels[0] > 127).nonzero().unbind(1)
            seen = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
            # A pixel of the view, or one of the image where that is larger.
            pixel = torch.tensor([width / view.resized_hw[1], height / view.resized_hw[0]]).repeat(2).clamp(min=1)
            error = (view.to_image(seen) - torch.tensor([x1, y1, x2, y2])).abs()
            assert (error <= pixel).all(), (view, error)


def test_the_centre_view_is_the_classifiers():
    for size_hw in ((375, 500), (501, 333), (224, 224)):
        image = noise(*size_hw)
        crops = ten_crops(image.permute(1, 2, 0).numpy(), 224)
        plain, mirrored = views_of(size_hw, CENTER.model_copy(update={"flip": True}), 224)
        assert torch.equal(plain.of_image(image).permute(1, 2, 0), torch.from_numpy(crops[4]))
        assert torch.equal(mirrored.of_image(image).permute(1, 2, 0), torch.from_numpy(crops[9].copy()))
        assert (plain.size_hw, mirrored.mirrored) == ((224, 224), True)


def test_dense_views_are_the_whole_image_at_each_scale():
    image = noise(375, 500)
    plain = views_of((375, 500), DENSE.model_copy(update={"flip": True}), 224)
    assert [(view.size_hw, view.mirrored) for view in plain] == [
        ((224, 299), False),
        ((224, 299), True),
        ((256, 341), False),
        ((256, 341), True),
    ]
    expected = full_image_views(image.permute(1, 2, 0).numpy(), 224, flip=True)
    for view, pixels in zip(plain, expected, strict=False):
        assert torch.equal(view.of_image(image).permute(1, 2, 0), torch.from_numpy(pixels.copy()))


def test_no_view_is_longer_than_the_longer_side():
    (view, _) = views_of((100, 1000), DENSE, 224)
    assert (view.size_hw, view.resized_hw) == ((40, 400), (40, 400))
