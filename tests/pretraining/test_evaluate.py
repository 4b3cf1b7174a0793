import pytest
import torch

from detection.config import ClassifierModelConfig
from detection.errors import DatasetError
from detection.pretraining.data import ImageBatch
from detection.pretraining.evaluate import count_errors, evaluate_classifiers
from detection.pretraining.model import build_classifier


def test_errors_are_counted_by_rank():
    """Scores 6 > 5 > ... > 0 for the classes 0..6: label 0 is right, 4 is the fifth, 5 is outside of the best five."""
    logits = torch.arange(6, -1, -1.0).expand(4, 7)
    assert count_errors(logits, torch.tensor([0, 4, 5, 6])).tolist() == [3, 2]


def test_with_few_classes_the_best_five_are_all():
    assert count_errors(torch.tensor([[0.0, 1.0]]), torch.tensor([0])).tolist() == [1, 0]


def test_errors_do_not_depend_on_the_batches():
    model = build_classifier(ClassifierModelConfig(backbone="resnet18"), [str(n) for n in range(8)])
    model.train()
    images, labels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 8, (6,))

    def batches(size):
        return [ImageBatch(images[n : n + size], labels[n : n + size], [""] * size) for n in range(0, 6, size)]

    whole, parts = evaluate_classifiers([model], batches(6)), evaluate_classifiers([model], batches(2))
    assert whole == parts and set(whole) == {"top1_error", "top5_error"}
    assert 0 <= whole["top5_error"] <= whole["top1_error"] <= 1
    assert model.training


def test_no_image_is_an_error():
    with pytest.raises(DatasetError, match="no image"):
        evaluate_classifiers([build_classifier(ClassifierModelConfig(backbone="resnet18"), ["a"])], [])
