"""A backbone's weights out of a classifier's file. Every refusal is one line that names the file."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from backbones import (
    IMAGENET_PREPROCESSING,
    CheckpointError,
    Preprocessing,
    build_backbone,
    build_c4,
    save_checkpoint,
)

CAFFE = Preprocessing("bgr", (102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def state():
    """A ResNet-18 with seven classes, as torchvision saves it."""
    return torchvision.models.resnet18(num_classes=7).state_dict()


def classifier(state, **changes):
    """A classifier's checkpoint of ours; `stride_in_1x1` and `backbone` go into its config."""
    model = {"backbone": changes.pop("backbone", "resnet18"), "stride_in_1x1": changes.pop("stride_in_1x1", False)}
    return {
        "format": "resdet",
        "version": 1,
        "kind": "classifier",
        "model": dict(state),
        "class_names": [str(label) for label in range(7)],
        "preprocessing": CAFFE.to_dict(),
        "config": {"model": model},
        "versions": {},
    } | changes


def refusal(path, name="resnet18", **options):
    """The message of the CheckpointError that loading this file must raise: one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        build_backbone(name, path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("num_classes", [None, 7])
def test_plain_state_dicts_of_torchvision(tmp_path, state, suffix, num_classes):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = build_backbone("resnet18", path, norm="frozen_bn", num_classes=num_classes)
    assert model.preprocessing == IMAGENET_PREPROCESSING
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_a_checkpoint_of_ours_brings_its_preprocessing(tmp_path, state):
    save_checkpoint(classifier(state), tmp_path / "best.pt")
    assert build_backbone("resnet18", tmp_path / "best.pt", num_classes=7).preprocessing == CAFFE
    trunk, head = build_c4("resnet18", tmp_path / "best.pt", norm="frozen_bn")
    assert trunk.preprocessing == CAFFE
    torch.testing.assert_close(trunk.get_parameter("conv1.weight"), state["conv1.weight"])
    torch.testing.assert_close(head.get_parameter("layer4.0.conv1.weight"), state["layer4.0.conv1.weight"])


def test_weights_without_step_counts_load(tmp_path, state):
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, tmp_path / "old.pth")
    model = build_backbone("resnet18", str(tmp_path / "old.pth"))
    torch.testing.assert_close(model.get_buffer("bn1.running_var"), state["bn1.running_var"])


def test_weights_of_another_architecture(tmp_path, state):
    torch.save(state, tmp_path / "r18.pth")
    assert "missing keys: 'layer1.2.conv1.weight'" in refusal(tmp_path / "r18.pth", "resnet34")
    assert "resnet18" in refusal(tmp_path / "r18.pth", "resnet50") or "missing keys" in refusal(
        tmp_path / "r18.pth", "resnet50"
    )
    assert "unexpected keys: 'layer2.0.downsample.0.weight'" in refusal(tmp_path / "r18.pth", "plain18")
    torch.save(state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    assert "'conv1.weight' has shape (64, 1, 7, 7), the model's has (64, 3, 7, 7)" in refusal(tmp_path / "grey.pth")


def test_another_number_of_classes(tmp_path, state):
    torch.save(state, tmp_path / "seven.pth")
    assert "classifies 7 classes, the model 10: set num_classes" in refusal(tmp_path / "seven.pth", num_classes=10)
    headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
    torch.save(headless, tmp_path / "headless.pth")
    build_backbone("resnet18", tmp_path / "headless.pth")
    assert "missing keys: 'fc.weight', 'fc.bias'" in refusal(tmp_path / "headless.pth", num_classes=7)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": 99}, "format version 99; this resdet reads 1, 2"),
        ({"kind": "detector"}, "a detector's checkpoint; a classifier's is needed"),
        ({"backbone": "resnet50"}, "holds a resnet50, not a resnet18"),
        ({"stride_in_1x1": True}, "was trained with stride_in_1x1=True, the model has False"),
        ({"preprocessing": {"channel_order": "rgb"}}, "preprocessing must hold"),
        ({"config": {}}, "not a complete resdet checkpoint"),
        ({"config": 3}, "not a complete resdet checkpoint"),
        ({"model": None}, "not a complete resdet checkpoint"),
    ],
    ids=str,
)
def test_checkpoints_of_ours_that_disagree(tmp_path, state, changes, expected):
    save_checkpoint(classifier(state, **changes), tmp_path / "c.pt")
    assert expected in refusal(tmp_path / "c.pt")
