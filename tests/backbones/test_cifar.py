"""The CIFAR nets: layers, shortcuts, activation checkpointing, and the weights of another project that circulate."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones import (
    IMAGENET_PREPROCESSING,
    BackboneError,
    BackboneOptions,
    CheckpointError,
    CifarResNet,
    build_backbone,
    build_c4,
    layer_list,
    list_backbones,
    load_checkpoint,
    save_checkpoint,
)
from backbones.blocks import ZeroPadding
from backbones.checkpointing import checkpointed
from backbones.weights.conversion import convert_backbone
from detection.cli.main import main
from detection.config import ClassifierModelConfig
from detection.pretraining.model import load_classifier
from tests.pretraining.class_folders import make_config, write_data


def random_norms(model):
    """Give every BatchNorm values that an untrained one does not have."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.2)
            module.get_buffer("running_mean").normal_(std=0.2)
            module.get_buffer("running_var").uniform_(0.5, 2.0)
    return model


@pytest.mark.parametrize("kind", ["resnet", "plain"])
@pytest.mark.parametrize("depth", [8, 20, 56, 110])
def test_layers(kind, depth):
    with torch.device("meta"):
        layers = layer_list(build_backbone(f"cifar_{kind}{depth}", num_classes=10), 32)
    assert len(layers) == depth
    blocks = (depth - 2) // 6
    widths = [16] * (2 * blocks) + [32] * (2 * blocks) + [64] * (2 * blocks)
    assert [layer.out_channels for layer in layers] == [16, *widths, 10]
    assert [layer.in_channels for layer in layers] == [3, 16, *widths]
    assert {(layer.kernel, layer.padding, layer.bias) for layer in layers[:-1]} == {(3, 1, False)}
    assert [layer.name for layer in layers if layer.stride == 2] == ["layer2.0.conv1", "layer3.0.conv1"]
    assert [layer.name for layer in layers[:3]] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]
    assert [layer.norm for layer in layers[:3]] == ["bn1", "layer1.0.bn1", "layer1.0.bn2"]
    assert (layers[-1].kind, layers[-1].name) == ("linear", "fc")


@torch.no_grad()
def test_features_and_logits_by_hand():
    model = random_norms(build_backbone("cifar_resnet8", num_classes=4)).eval()
    images = torch.randn(2, 3, 13, 32)
    features = model(images)
    shapes = {"c2": (2, 16, 13, 32), "c3": (2, 32, 7, 16), "c4": (2, 64, 4, 8)}
    assert {name: tuple(feature.shape) for name, feature in features.items()} == shapes
    assert model.channels == {"c2": 16, "c3": 32, "c4": 64} and model.strides == {"c2": 1, "c3": 2, "c4": 4}
    torch.testing.assert_close(model.logits(images), model.fc(features["c4"].mean(dim=(2, 3))))
    with pytest.raises(BackboneError, match="build it with num_classes"):
        build_backbone("cifar_plain8").logits(images)


def test_he_initialisation():
    stage = build_backbone("cifar_resnet110").get_submodule("layer3")
    weights = [module.weight for module in stage.modules() if isinstance(module, nn.Conv2d)]
    assert torch.cat([weight.flatten() for weight in weights[1:]]).std().item() == pytest.approx(
        (2 / (64 * 9)) ** 0.5, rel=0.01
    )


def test_option_a_puts_zeros_on_both_sides():
    x = torch.arange(2.0 * 16 * 5 * 4).view(2, 16, 5, 4) + 1
    shortcut = CifarResNet(8).get_submodule("layer2.0.downsample")
    out = shortcut(x)
    assert out.shape == (2, 32, 3, 2) and not list(shortcut.parameters())
    torch.testing.assert_close(out[:, 8:24], x[:, :, ::2, ::2], rtol=0, atol=0)
    assert out[:, :8].abs().max() == 0 and out[:, 24:].abs().max() == 0
    assert ZeroPadding(3, 1, "both")(x).shape[1] == 19  # an odd number: one more after


@pytest.mark.parametrize(("shortcut", "projections"), [("A", 0), ("B", 2), ("C", 3), ("none", 0)])
def test_shortcut_options(shortcut, projections):
    names = CifarResNet(8, shortcut=shortcut).state_dict()
    assert sum(name.endswith("downsample.0.weight") for name in names) == projections
    # With all convolutions zero, a residual block passes its input on and a plain one does not.
    block = CifarResNet(8, shortcut=shortcut).get_submodule("layer1.0").eval()
    nn.init.zeros_(block.get_parameter("conv2.weight"))
    x = torch.rand(1, 16, 8, 8)
    if shortcut in ("A", "B"):
        torch.testing.assert_close(block(x), x)
    elif shortcut == "none":
        assert block(x).abs().max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 21}, "depth must be 6n \\+ 2 for a CIFAR net, got 21; the nearest are 20 and 26"),
        ({"depth": 19}, "the nearest are 14 and 20"),
        ({"depth": 2}, "got 2; the least is 8"),
        ({"shortcut": "D"}, "shortcut must be one of"),
        ({"freeze_stages": 5}, "freeze_stages must be 0..4 for a CIFAR net, got 5"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    arguments = {"depth": 20, "shortcut": "A", "freeze_stages": 0} | arguments
    options = BackboneOptions(freeze_stages=arguments["freeze_stages"])
    with pytest.raises(BackboneError, match=message):
        CifarResNet(arguments["depth"], options, shortcut=arguments["shortcut"])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"norm": "gn"}, "norm must be one of"), ({"num_classes": 0}, "num_classes must be 1..100000, or None")],
)
def test_options_out_of_range(options, message):
    with pytest.raises(BackboneError, match=message):
        build_backbone("cifar_resnet20", **options)


def test_any_depth_by_name():
    assert {"cifar_resnet20", "cifar_resnet1202", "cifar_plain110"} <= set(list_backbones())
    assert len(list(build_backbone("cifar_resnet38").get_submodule("layer1").children())) == 6
    assert build_backbone("cifar_plain26").get_submodule("layer2.0").downsample is None
    for name, message in {
        "cifar_resnet21": "the nearest are 20 and 26",
        "cifar_resnet020": "did you mean 'cifar_resnet20'",
        "cifar_resnet": "did you mean 'cifar_resnet",
        "resnet38": "did you mean 'resnet34",
    }.items():
        with pytest.raises(BackboneError, match=message):
            build_backbone(name)
    with pytest.raises(BackboneError, match="no split into a trunk"):
        build_c4("cifar_resnet20")


@pytest.mark.parametrize("stages", range(5))
def test_frozen_stages(stages):
    model = CifarResNet(8, BackboneOptions(freeze_stages=stages)).train()
    model.checkpoint_activations = True
    before = copy.deepcopy(model.state_dict())
    loss = model(torch.randn(2, 3, 8, 8))["c4"].square().mean()
    assert loss.requires_grad == (stages < 4)
    if stages < 4:
        loss.backward()
    frozen = ["conv1", "layer1", "layer2", "layer3"][:stages]
    for name, parameter in model.named_parameters():
        if name.startswith(("conv1", "layer")):
            assert (parameter.grad is None) == name.startswith(tuple(frozen))
    for name, value in model.state_dict().items():
        if name.startswith(tuple(frozen)):
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_frozen_bn_equals_evaluation_mode():
    model = random_norms(build_backbone("cifar_resnet14", num_classes=3)).eval()
    frozen = build_backbone("cifar_resnet14", norm="frozen_bn", num_classes=3)
    frozen.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(frozen.logits(images), model.logits(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_checkpointing_changes_neither_gradients_nor_statistics(momentum):
    torch.manual_seed(0)
    plain = CifarResNet(32, BackboneOptions(num_classes=3), checkpoint_activations=False).train()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    saving = copy.deepcopy(plain)
    saving.checkpoint_activations = True
    for _ in range(2):
        images = torch.randn(4, 3, 8, 8)
        for model in (plain, saving):
            F.cross_entropy(model.logits(images), torch.tensor([0, 1, 2, 1])).backward()
    for (name, expected), found in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=name)
    assert saving.get_buffer("bn1.num_batches_tracked") == saving.get_buffer("layer3.0.bn2.num_batches_tracked") == 2
    assert saving.get_submodule("layer1.0.bn1").momentum == momentum
    for expected, found in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def saved_numbers(model, images):
    """How many numbers autograd keeps between the passes, parameters aside."""
    own = {id(parameter) for parameter in model.parameters()}
    sizes = {}

    def pack(tensor):
        if id(tensor) not in own:
            sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.logits(images).sum()
    return sum(sizes.values()), loss


def test_checkpointing_saves_memory():
    images = torch.randn(2, 3, 16, 16)
    model = CifarResNet(56, BackboneOptions(num_classes=2), checkpoint_activations=True)
    entered = []
    for block in model.layer1:
        block.register_forward_pre_hook(lambda *_: entered.append(1))
    few, loss = saved_numbers(model, images)
    model.checkpoint_activations = False
    many, _ = saved_numbers(model, images)
    assert few < many / 5
    assert len(entered) == 18
    loss.backward()
    assert len(entered) == 27


def test_deep_nets_checkpoint_by_themselves_and_only_for_gradients():
    with torch.device("meta"):
        assert build_backbone("cifar_resnet1202").checkpoint_activations
        assert not build_backbone("cifar_resnet110").checkpoint_activations
    blocks = nn.Sequential(*[nn.Conv2d(1, 1, 1) for _ in range(5)])
    x = torch.randn(1, 1, 2, 2)
    torch.testing.assert_close(checkpointed(blocks, x), blocks(x))


def test_1202_layers_are_built_and_trained():
    model = build_backbone("cifar_resnet1202", num_classes=10).train()
    assert sum(parameter.numel() for parameter in model.parameters()) == 19_421_274
    F.cross_entropy(model.logits(torch.randn(2, 3, 8, 8)), torch.tensor([3, 7])).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.get_buffer("layer1.199.bn2.num_batches_tracked") == 1


def test_pretraining_a_cifar_net(tmp_path, capsys):
    config = make_config(
        write_data(tmp_path / "set"), tmp_path / "run", model={"backbone": "cifar_resnet8"}, train={"steps": 2, "log_every": 1}
    )
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    assert main(["pretrain", "--config", str(tmp_path / "config.json")]) == 0
    assert "top-1 error" in capsys.readouterr().out
    model = build_backbone("cifar_resnet8", tmp_path / "run" / "model.pt", num_classes=2)
    assert model.get_parameter("fc.weight").shape == (2, 64)
    with pytest.raises(CheckpointError, match="holds a cifar_resnet8, not a cifar_plain8"):
        build_backbone("cifar_plain8", tmp_path / "run" / "model.pt")


def their_network(depth, num_classes=10):
    """Random tensors under the names of akamaster's project, from its architecture: no counts of steps."""
    state = {}

    def conv_and_norm(conv, norm, inputs, outputs):
        state[f"{conv}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.rand(outputs) + 0.5, torch.randn(outputs) * 0.1
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = torch.randn(outputs) * 0.1, torch.rand(outputs) + 0.5

    conv_and_norm("conv1", "bn1", 3, 16)
    inputs = 16
    for number, width in ((1, 16), (2, 32), (3, 64)):
        for block in range((depth - 2) // 6):
            start = f"layer{number}.{block}"
            conv_and_norm(f"{start}.conv1", f"{start}.bn1", inputs, width)
            conv_and_norm(f"{start}.conv2", f"{start}.bn2", width, width)
            inputs = width
    state["linear.weight"], state["linear.bias"] = torch.randn(num_classes, 64) * 0.1, torch.randn(num_classes)
    return state


def their_logits(state, images):
    """That project's forward pass: every second pixel, and a quarter of the new width of zeros on either side."""

    def layer(x, conv, norm, stride):
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        mean, var = state[f"{norm}.running_mean"].view(1, -1, 1, 1), state[f"{norm}.running_var"].view(1, -1, 1, 1)
        x = (x - mean) / (var + 1e-5).sqrt()
        return x * state[f"{norm}.weight"].view(1, -1, 1, 1) + state[f"{norm}.bias"].view(1, -1, 1, 1)

    x = layer(images, "conv1", "bn1", 1).relu()
    starts = [key.removesuffix(".conv1.weight") for key in state if key.endswith(".conv1.weight")]
    for start in starts:
        stride = 2 if start in ("layer2.0", "layer3.0") else 1
        out = layer(layer(x, f"{start}.conv1", f"{start}.bn1", stride).relu(), f"{start}.conv2", f"{start}.bn2", 1)
        if stride == 2:
            quarter = out.shape[1] // 4
            zeros = out.new_zeros(out.shape[0], quarter, *out.shape[2:])
            x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
        x = (out + x).relu()
    return x.mean(dim=(2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return their_network(20)


@pytest.fixture
def their_file(theirs, tmp_path):
    wrapped = {"state_dict": {f"module.{key}": value for key, value in theirs.items()}, "best_prec1": 91.73}
    torch.save(wrapped, tmp_path / "resnet20.th", _use_new_zipfile_serialization=False)
    return tmp_path / "resnet20.th"


@torch.no_grad()
def test_weights_that_circulate_are_converted(theirs, their_file, tmp_path, capsys):
    ours = tmp_path / "ours.pt"
    assert main(["convert-weights", str(their_file), str(ours)]) == 0
    assert "classifier, cifar_resnet20 (format akamaster)" in capsys.readouterr().out
    model = build_backbone("cifar_resnet20", ours, num_classes=10).eval()
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model.logits(images), their_logits(theirs, images), rtol=1e-5, atol=1e-5)
    assert model.preprocessing == IMAGENET_PREPROCESSING
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(model.preprocessing.normalize(pixels), (pixels / 255 - mean) / deviation, rtol=1e-5, atol=1e-5)
    assert load_checkpoint(ours)["metadata"]["config"]["model"]["backbone"] == "cifar_resnet20"


@torch.no_grad()
def test_weights_that_circulate_are_loaded_as_they_are(theirs, their_file, tmp_path):
    images = torch.randn(2, 3, 32, 32)
    model = build_backbone("cifar_resnet20", their_file, num_classes=10).eval()
    torch.testing.assert_close(model.logits(images), their_logits(theirs, images), rtol=1e-5, atol=1e-5)
    assert build_backbone("cifar_resnet20", their_file).fc is None
    names = [str(number) for number in range(10)]
    classifier = load_classifier(their_file, ClassifierModelConfig(backbone="cifar_resnet20"), names)
    torch.testing.assert_close(classifier.backbone.logits(images), their_logits(theirs, images), rtol=1e-5, atol=1e-5)
    save_checkpoint(theirs, tmp_path / "bare.pth")
    bare = build_backbone("cifar_resnet20", tmp_path / "bare.pth")
    assert torch.equal(bare.get_parameter("conv1.weight"), theirs["conv1.weight"])
    for name, num_classes, message in [
        ("cifar_resnet56", 10, "holds a cifar_resnet20, not a cifar_resnet56: set the backbone to cifar_resnet20"),
        ("cifar_plain20", 10, "holds a cifar_resnet20, not a cifar_plain20"),
        ("cifar_resnet20", 7, "classifies 10 classes, the model 7"),
        ("resnet18", 10, "convert-weights"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            build_backbone(name, their_file, num_classes=num_classes)
    ours = build_backbone("cifar_resnet20", num_classes=10)
    save_checkpoint(ours.state_dict(), tmp_path / "plain.pth")
    plain = build_backbone("cifar_resnet20", tmp_path / "plain.pth", num_classes=10)
    assert torch.equal(plain.get_parameter("fc.weight"), ours.get_parameter("fc.weight"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer2.0.shortcut.0.weight": torch.ones(32, 16, 1, 1)}, r"projections in the shortcuts \(option B\)"),
        ({"layer4.0.conv1.weight": torch.ones(1, 1, 3, 3)}, "a fourth stage"),
        ({"layer1.0.conv3.weight": torch.ones(1, 1, 1, 1)}, "1 of its 98 tensors have no place"),
        ({"layer3.2.conv1.weight": None}, "1 missing keys: 'layer3.2.conv1.weight'"),
        ({"layer1.3.conv1.weight": torch.ones(16, 16, 3, 3)}, "4, 3, 3 blocks in its stages"),
        ({"conv1.weight": torch.ones(64, 3, 3, 3)}, r"'conv1.weight' has shape \(64, 3, 3, 3\)"),
        ({"linear.bias": torch.full((10,), float("nan"))}, "'fc.bias' holds NaN"),
    ],
)
def test_other_networks_with_such_a_classifier_are_refused(theirs, changes, message):
    state = {key: value for key, value in (theirs | changes).items() if value is not None}
    with pytest.raises(CheckpointError, match=f"^x.th .*{message}|^x.th: {message}"):
        convert_backbone({"state_dict": state}, "x.th")
