"""What waits for a GPU and what does not, on one that is pretended; CUDA's branches find what the CPU's do."""

import pytest
import torch

from backbones.constants import constant
from detection.errors import CheckpointError
from detection.inference.detector import detect_plainly
from detection.modeling.fixed_sizes import are_finite, counts_of_finite, masked_smooth_l1, places_of
from detection.structures import Batch, Target, pad_images
from tests.matching import same_detections
from tests.pretended_gpu import GPU, pretended_gpu, to_gpu, to_host
from tests.small_detector import detector, noise, pyramid

DETECTORS = {"c4": detector, "pyramid": pyramid}


def batch_of(number: int) -> Batch:
    """Images of two sizes; the last one has no object."""
    sizes = [(64, 80), (48, 64)] * number
    boxes = torch.tensor([[8.0, 8, 40, 40], [20, 10, 60, 30]])
    targets = [Target(boxes, torch.tensor([0, 1]), torch.tensor([[0.0, 0, 9, 9]])) for _ in range(number - 1)]
    targets.append(Target(boxes[:0], torch.zeros(0, dtype=torch.long), boxes[:0]))
    return Batch(pad_images([noise(*size) for size in sizes[:number]]), sizes[:number], targets)


def fresh(kind: str, refined_iou: float = 0):
    torch.manual_seed(0)
    return DETECTORS[kind](roi={"refined_iou": refined_iou}).requires_grad_(False)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize(
    ("kind", "refined_iou", "more"), [("c4", 0, 0), ("pyramid", 0, 0), ("c4", 0.6, 0), ("pyramid", 0.6, 1)]
)
def test_a_training_step_waits_once_per_image_and_four_times(kind, refined_iou, more, number):
    """With a pyramid once more where refined boxes are learnt from: how many of them each map has."""
    model = fresh(kind, refined_iou).train()
    batch = batch_of(number)
    torch.manual_seed(1)
    expected = model(batch)
    with pretended_gpu() as gpu:
        model.to(GPU)
        model(batch.to(GPU))  # makes the constants
        gpu.restart()
        torch.manual_seed(1)
        losses = model(batch.to(GPU))
        assert gpu.waits.total() <= 4 + number + more, gpu.waits
        again = 100 * (1 + number) if refined_iou else 0
        assert 100 < gpu.launches.total() < 400 + 200 * number + again
        losses = {name: float(loss) for name, loss in losses.items()}
    # torchvision's RoIAlign sums in another order, and the sample is drawn alike: its keys come from the same generator.
    assert losses == pytest.approx({name: float(loss) for name, loss in expected.items()}, rel=1e-4)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize(("kind", "more"), [("c4", 0), ("pyramid", 1)])
def test_a_prediction_waits_twice_per_image_and_twice(kind, more, number):
    """With a pyramid once more: how many regions each map has."""
    model = fresh(kind).eval()
    arrays = [noise(64, 80).permute(1, 2, 0).numpy() for _ in range(number)]
    expected = model.predict(arrays)
    with pretended_gpu() as gpu:
        model.to(GPU)
        detect_plainly(model, arrays)
        gpu.restart()
        with torch.inference_mode():
            found = detect_plainly(model, arrays)
        assert gpu.waits.total() <= 2 * number + 2 + more, gpu.waits
        whole = model.predict(arrays)  # adds no wait of its own
        moved = [(each.boxes.cpu(), each.scores.cpu(), each.labels.cpu()) for each in (*found, *whole)]
    for ours, theirs in zip(moved, expected * 2, strict=True):
        assert len(theirs) > 5
        same_detections(ours, (theirs.boxes, theirs.scores, theirs.labels))


def test_the_pretended_gpu_counts_what_waits():
    host, mask = torch.arange(4.0), torch.tensor([True, False, True, False])
    asked = [
        lambda x, m: x.sum().item(),
        lambda x, m: x.tolist(),
        lambda x, m: bool(x.any()),
        lambda x, m: float(x[0]),
        lambda x, m: m.nonzero(),
        lambda x, m: x[m],
        lambda x, m: x[[0, 1]],
        lambda x, m: x[torch.tensor([0, 1])],
        lambda x, m: x.masked_select(m),
        lambda x, m: x.unique(),
        lambda x, m: x.cpu(),
        lambda x, m: x.to("cpu", non_blocking=True),
        lambda x, m: torch.zeros(4).copy_(x),
        lambda x, m: host.to(GPU),
        lambda x, m: torch.tensor([1.0, 2.0], device=GPU),
        lambda x, m: x.new_tensor([1.0]),
        lambda x, m: x.repeat_interleave(m.long()),
    ]
    unasked = [
        lambda x, m: x + 1,
        lambda x, m: x[:2],
        lambda x, m: x[m.long()],
        lambda x, m: x.masked_fill(m, 0),
        lambda x, m: x.__setitem__(m, 1.0),
        lambda x, m: host.to(GPU, non_blocking=True),
        lambda x, m: torch.zeros(3, device=GPU),
        lambda x, m: x.topk(2),
        lambda x, m: torch.where(m, x, 0),
    ]
    with pretended_gpu() as gpu:
        for expected, actions in ((1, asked), (0, unasked)):
            for number, action in enumerate(actions):
                x, m = to_gpu((host.clone(), mask))
                gpu.restart()
                action(x, m)
                assert gpu.waits.total() == expected, (expected, number)


def test_the_pretended_gpu_refuses_tensors_of_both_devices():
    with pretended_gpu():
        x = to_gpu(torch.ones(3))
        assert (x * torch.tensor(2.0)).device == GPU and (x + 1).device == GPU
        for mix in (
            lambda: x + torch.ones(3),
            lambda: torch.cat([x, torch.ones(3)]),
            lambda: torch.where(torch.ones(3) > 0, x, x),
        ):
            with pytest.raises(RuntimeError, match=r"expected all tensors on one device.*cuda:0 and cpu"):
                mix()
    with pytest.raises(RuntimeError, match="outside of it"):
        x + 1


def test_places_are_the_same_on_both_devices():
    mask = torch.rand(50) < 0.4
    expected = mask.nonzero().squeeze(1)
    assert torch.equal(places_of(mask, len(expected)), expected)
    with pretended_gpu() as gpu:
        found = places_of(to_gpu(mask), len(expected))
        assert not gpu.waits and torch.equal(to_host(found), expected)


def test_counts_and_finiteness_are_asked_for_together():
    values = torch.tensor([1.0, torch.inf])
    assert counts_of_finite([torch.tensor(3), torch.tensor(4)], are_finite([values[:1]])) == [3, 4]
    assert counts_of_finite([torch.tensor(3)], None) == [3] and counts_of_finite([], None) == []
    with pytest.raises(CheckpointError, match="not finite"):
        counts_of_finite([torch.tensor(3)], are_finite([values]))


def test_what_is_masked_has_neither_loss_nor_gradient():
    found = torch.randn(3, 4, requires_grad=True)
    wanted = torch.randn(3, 4)
    mask = torch.tensor([True, False, True])
    expected = torch.nn.functional.smooth_l1_loss(found[mask], wanted[mask], beta=0.5, reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected, found)
    loss = masked_smooth_l1(found, wanted.masked_fill(~mask[:, None], torch.nan), mask, 0.5)
    (gradient,) = torch.autograd.grad(loss, found)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_constants_are_made_once_and_fit_for_training():
    cpu = torch.device("cpu")
    with torch.inference_mode():
        first = constant((0.1, 0.2), cpu)
    assert constant((0.1, 0.2), cpu) is first and not first.is_inference()
    assert constant((0.1, 0.2), cpu, torch.float64).dtype == torch.float64
    with pretended_gpu() as gpu:
        assert constant((0.1, 0.2), GPU) is constant((0.1, 0.2), GPU) and gpu.waits.total() == 1
