"""Classes that an image does not know are no part of the loss of its RoIs: numbers by hand, and a plain loop over RoIs."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detection.modeling.roi_head import mask_unknown
from detection.modeling.sampled_rois import SampledRois
from detection.structures import Batch, Target
from tests.small_detector import detector, noise

LN = [math.log(number) for number in (1, 2, 3)]  # logits of cat, dog, background: exp gives 1, 2, 3


def mask(*known: bool) -> Tensor:
    return torch.tensor(known)


def loss_and_gradient(labels: list[list[int]], known: list[Tensor | None]) -> tuple[Tensor, Tensor]:
    truths = [torch.tensor(each, dtype=torch.long) for each in labels]
    logits = torch.tensor([LN] * sum(map(len, labels)), requires_grad=True)
    loss = F.cross_entropy(mask_unknown(logits, truths, known), torch.cat(truths), reduction="sum")
    loss.backward()
    assert logits.grad is not None
    return loss, logits.grad


@pytest.mark.parametrize(
    ("label", "known", "loss", "gradient"),
    [
        pytest.param(2, None, 6 / 3, [1 / 6, 2 / 6, 3 / 6 - 1], id="background, all known"),
        pytest.param(2, mask(True, False), 4 / 3, [1 / 4, 0, 3 / 4 - 1], id="background, dog unknown"),
        pytest.param(0, mask(True, False), 6 / 1, [1 / 6 - 1, 2 / 6, 3 / 6], id="cat, dog unknown: a cat is no dog"),
        pytest.param(1, mask(True, False), 6 / 2, [1 / 6, 2 / 6 - 1, 3 / 6], id="the RoI's own label counts"),
        pytest.param(1, mask(False, False), 6 / 2, [1 / 6, 2 / 6 - 1, 3 / 6], id="all unknown, an object"),
        pytest.param(2, mask(False, False), 1, [0, 0, 0], id="all unknown, background"),
    ],
)
def test_by_hand(label, known, loss, gradient):
    found, found_gradient = loss_and_gradient([[label]], [known])
    torch.testing.assert_close(found, torch.tensor(math.log(loss)))
    torch.testing.assert_close(found_gradient, torch.tensor([gradient]).float())
    assert all(found_gradient[0, k] == 0 for k, value in enumerate(gradient) if value == 0), "not almost"


def test_each_roi_has_the_mask_of_its_own_image():
    # Images with two, no and one RoI: 2 x cat alone known, then all.
    loss, gradient = loss_and_gradient([[2, 0], [], [2]], [mask(True, False), mask(False, False), None])
    torch.testing.assert_close(loss, torch.tensor(math.log(4 / 3) + math.log(6) + math.log(2)))
    torch.testing.assert_close(gradient, torch.tensor([[1 / 4, 0, -1 / 4], [-5 / 6, 2 / 6, 3 / 6], [1 / 6, 2 / 6, -1 / 2]]))
    assert mask_unknown(torch.zeros(0, 3), [torch.zeros(0, dtype=torch.long)], [mask(True, False)]).shape == (0, 3)


def test_without_a_mask_nothing_is_computed():
    logits = torch.rand(3, 3)
    labels = [torch.tensor([2, 2, 2])]
    assert mask_unknown(logits, labels, [None]) is logits
    assert torch.equal(mask_unknown(logits, labels, [mask(True, True)]), logits)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=40)
def test_a_plain_loop_over_rois_gives_the_same(seed, num_classes, num_images):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 4, (num_images,), generator=generator).tolist()
    labels = [torch.randint(0, num_classes + 1, (count,), generator=generator) for count in counts]
    known = [
        None if torch.rand(1, generator=generator) < 0.3 else torch.rand(num_classes, generator=generator) < 0.5 for _ in counts
    ]
    logits = torch.randn(sum(counts), num_classes + 1, generator=generator, dtype=torch.float64).mul(8).requires_grad_()
    losses, row = [logits.sum() * 0], 0
    for own, image_known in zip(labels, known, strict=True):
        for label in own.tolist():
            counted = [
                k
                for k in range(num_classes + 1)
                if k == num_classes or label < num_classes or image_known is None or bool(image_known[k])
            ]
            losses.append(logits[row, counted].exp().sum().log() - logits[row, label])
            row += 1
    expected = torch.stack(losses).sum()
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    loss = F.cross_entropy(mask_unknown(logits, labels, known), torch.cat(labels), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_the_head_divides_by_all_rois(monkeypatch):
    """Two images of two RoIs, K = 2; the first image knows no dogs: (ln 4/3 + ln 6 + ln 2 + ln 3) / 4."""
    head = detector().roi_head
    labels = [torch.tensor([2, 0]), torch.tensor([2, 1])]
    samples = [SampledRois(torch.rand(2, 4), own, torch.rand(2, 4), torch.zeros(2, dtype=torch.long)) for own in labels]
    monkeypatch.setattr(head, "sample_rois", lambda *_: samples)
    monkeypatch.setattr(head, "begin", lambda *_: None)
    monkeypatch.setattr(head, "vectors", lambda *_: torch.zeros(4, 1))
    monkeypatch.setattr(head, "logits_and_deltas", lambda *_: (torch.tensor([LN] * 4), torch.zeros(4, 2, 4)))
    nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    targets = [Target(*nothing, known=mask(True, False)), Target(*nothing)]
    losses = head.losses([torch.zeros(2, 1, 1, 1)], [torch.zeros(0, 4)] * 2, [(9, 9)] * 2, targets)
    torch.testing.assert_close(losses["loss_class"], torch.tensor(math.log(4 / 3 * 6 * 2 * 3) / 4))


def losses_and_class_gradient(known: Tensor | None, boxes: list[list[float]]) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    model = detector()
    labels = torch.zeros(len(boxes), dtype=torch.long)
    target = Target(torch.tensor(boxes).reshape(-1, 4), labels, torch.zeros(0, 4), known)
    torch.manual_seed(1)  # the sampled anchors and RoIs
    losses = model(Batch(noise(64, 80)[None], [(64, 80)], [target]))
    sum(losses.values()).backward()
    gradient = model.roi_head.class_scores.weight.grad
    assert gradient is not None
    return {name: loss.detach() for name, loss in losses.items()}, gradient


def test_all_known_is_no_mask_bit_by_bit():
    boxes = [[8.0, 8, 40, 40]]
    losses, gradient = losses_and_class_gradient(None, boxes)
    masked, masked_gradient = losses_and_class_gradient(mask(True, True), boxes)
    assert all(torch.equal(loss, masked[name]) for name, loss in losses.items())
    assert torch.equal(gradient, masked_gradient)


@pytest.mark.parametrize("boxes", [[], [[8.0, 8, 40, 40]]], ids=["no object", "a cat"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_background_does_not_train_an_unknown_class(boxes, precision):
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        losses, gradient = losses_and_class_gradient(mask(True, False), boxes)
    assert all(loss.isfinite() for loss in losses.values()) and gradient.isfinite().all()
    assert (gradient[1] == 0).all() == (not boxes) and gradient[0].abs().max() > 0 and gradient[2].abs().max() > 0
    whole, _ = losses_and_class_gradient(None, boxes)
    for name in ("loss_rpn_objectness", "loss_rpn_box"):  # which know no classes
        torch.testing.assert_close(losses[name].float(), whole[name], rtol=0.05, atol=0.01)


def test_nothing_is_asked_of_the_device():
    """Tensors without values: whoever looked at one would be refused."""
    labels = [torch.zeros(3, dtype=torch.long, device="meta"), torch.zeros(0, dtype=torch.long, device="meta")]
    known = [torch.zeros(2, dtype=torch.bool, device="meta"), None]
    assert mask_unknown(torch.zeros(3, 3, device="meta"), labels, known).device.type == "meta"
