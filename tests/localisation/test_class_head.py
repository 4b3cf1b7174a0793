"""The per-class layers: their channel order, and that some classes computed alone are what all of them together give."""

import math

import pytest
import torch

from detection.localisation.class_head import ClassHead

K, A, D = 5, 3, 4


@pytest.fixture
def head() -> ClassHead:
    head = ClassHead(D, K, A)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


def literal(head: ClassHead, features: torch.Tensor, image: int, label: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One class of one image, anchor by anchor: (M,) and (M, 4)."""
    logits, deltas = [], []
    for y in range(features.shape[2]):
        for x in range(features.shape[3]):
            for anchor in range(A):
                channel, cell = label * A + anchor, features[image, :, y, x]
                logits.append(head.scores.weight[channel, :, 0, 0] @ cell + head.scores.get_parameter("bias")[channel])
                rows = [
                    head.deltas.weight[channel * 4 + i, :, 0, 0] @ cell + head.deltas.get_parameter("bias")[channel * 4 + i]
                    for i in range(4)
                ]
                deltas.append(torch.stack(rows))
    return torch.stack(logits), torch.stack(deltas)


def test_channels_run_class_by_class(head):
    features = torch.randn(2, D, 2, 3)
    logits, deltas = head(features)
    assert (logits.shape, deltas.shape) == ((2, K, 2 * 3 * A), (2, K, 2 * 3 * A, 4))
    for image, label in ((0, 0), (1, 3)):
        expected = literal(head, features, image, label)
        torch.testing.assert_close((logits[image, label], deltas[image, label]), expected)


@pytest.mark.parametrize("classes", [[[4], [0]], [[0, 1, 2, 3, 4], [3, 3, 0, 4, 1]]], ids=["C=1", "C=5"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_some_classes_alone_are_the_dense_channels(head, classes, memory_format):
    head.to(memory_format=memory_format)
    features = torch.randn(2, D, 3, 2).contiguous(memory_format=memory_format)
    chosen = torch.tensor(classes)
    logits, deltas = head.of_classes(features, chosen)
    all_logits, all_deltas = head(features)
    rows = torch.arange(2)[:, None]
    torch.testing.assert_close(logits, all_logits[rows, chosen])
    torch.testing.assert_close(deltas, all_deltas[rows, chosen])


def test_what_classes_have_in_common_is_added_to_each():
    head = ClassHead(D, K, A, common=True)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    alone = ClassHead(D, K, A)
    alone.load_state_dict({key: value for key, value in head.state_dict().items() if not key.startswith("common.")})
    assert head.common is not None and alone.common is None
    features, chosen = torch.randn(2, D, 3, 2), torch.tensor([[4, 0], [1, 1]])
    logits, deltas = head.common(features)
    assert (logits.shape, deltas.shape) == ((2, 1, 6 * A), (2, 1, 6 * A, 4))
    for found, own in (
        (head(features), alone(features)),
        (head.of_classes(features, chosen), alone.of_classes(features, chosen)),
    ):
        torch.testing.assert_close(found, (own[0] + logits, own[1] + deltas))


def test_a_class_without_images_learns_what_all_have_in_common():
    head = ClassHead(D, K, A, common=True)
    features = torch.randn(1, D, 2, 2)
    before, _ = head.of_classes(features, torch.tensor([[0, 3]]))
    torch.testing.assert_close(before[:, 0], before[:, 1])
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    (-head.of_classes(features, torch.tensor([[0]]))[0].sum()).backward()
    optimizer.step()
    after, _ = head.of_classes(features, torch.tensor([[0, 3]]))
    assert (after[:, 1] > before[:, 1]).all() and (after[:, 0] > after[:, 1]).all()


def test_gradients_reach_only_the_rows_of_the_classes(head):
    logits, deltas = head.of_classes(torch.randn(2, D, 1, 2), torch.tensor([[1], [3]]))
    (logits.square().sum() + deltas.square().sum()).backward()
    for parameter, rows in (
        (head.scores.weight, A),
        (head.deltas.weight, 4 * A),
        (head.scores.get_parameter("bias"), A),
        (head.deltas.get_parameter("bias"), 4 * A),
    ):
        touched = parameter.grad.reshape(K, rows, -1).ne(0).any(dim=2).all(dim=1)
        untouched = parameter.grad.reshape(K, rows, -1).eq(0).all(dim=2).all(dim=1)
        assert touched.tolist() == [False, True, False, True, False]
        assert untouched.tolist() == [True, False, True, False, True]


def test_gradients_are_those_of_the_dense_layers(head):
    features, chosen = torch.randn(2, D, 2, 2, requires_grad=True), torch.tensor([[1], [1]])
    wanted = [features, *head.parameters()]
    of_some = torch.autograd.grad(sum(each.square().sum() for each in head.of_classes(features, chosen)), wanted)
    of_all = torch.autograd.grad(sum(each[:, 1].square().sum() for each in head(features)), wanted)
    torch.testing.assert_close(of_some, of_all)


def test_all_classes_at_single_anchors(head):
    features = torch.randn(1, D, 2, 2)
    logits, _ = head(features)
    cells, anchors = torch.tensor([0, 3, 3]), torch.tensor([2, 0, 1])
    found = head.all_logits_at(features.flatten(2)[0].T[cells], anchors)
    torch.testing.assert_close(found, logits[0][:, cells * A + anchors].T)


def test_no_image_no_class_and_no_anchor(head):
    logits, deltas = head.of_classes(torch.randn(0, D, 2, 2), torch.zeros((0, 1), dtype=torch.long))
    assert (logits.shape, deltas.shape) == ((0, 1, 12), (0, 1, 12, 4))
    logits, deltas = head.of_classes(torch.randn(2, D, 2, 2), torch.zeros((2, 0), dtype=torch.long))
    assert (logits.shape, deltas.shape) == ((2, 0, 12), (2, 0, 12, 4))
    assert head.all_logits_at(torch.randn(0, D), torch.zeros(0, dtype=torch.long)).shape == (0, K)


def test_outputs_are_float32_under_autocast(head):
    features, chosen = torch.randn(1, D, 2, 2), torch.tensor([[2]])
    with torch.autocast("cpu", torch.bfloat16):
        found = [*head(features), *head.of_classes(features, chosen), head.all_logits_at(features[:, :, 0, 0], chosen[0])]
    assert {each.dtype for each in found} == {torch.float32}


def test_scores_start_at_the_prior():
    head = ClassHead(D, 1000, 1, prior=0.0005)
    torch.testing.assert_close(head.scores.get_parameter("bias").sigmoid(), torch.full((1000,), 0.0005))
    assert head.deltas.get_parameter("bias").eq(0).all()
    assert math.isclose(head.scores.weight.std().item(), 0.01, rel_tol=0.1)
    assert math.isclose(head.deltas.weight.std().item(), 0.001, rel_tol=0.1)
