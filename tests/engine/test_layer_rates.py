"""Which layer learns at which rate: the stages of real networks, by hand; AdamW beside torch's own; resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from backbones import build_backbone
from detection.config import Config, TrainConfig
from detection.engine.layer_rates import backbone_depths, rate_factors
from detection.engine.optim import build_optimizer, current_rate, parameter_groups, set_learning_rate
from detection.errors import CheckpointError, TrainingError
from detection.inference.detector import build_detector
from detection.pretraining.model import ClassificationModel
from tests.engine.test_resume import assert_same_run
from tests.engine.toy import CONFIG, ToyBatch, ToyModel, run, toy_batch, toy_batches
from tests.small_detector import pyramid

ADAMW = CONFIG.model_copy(update={"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1, "ema_decay": 0.5})


def detector_depths(backbone: str) -> dict[str, int]:
    values = {"model": {"backbone": backbone, "freeze_stages": 0}, "data": {"classes": ["cat"]}, "roi": {"pool_size": 7}}
    config = Config.model_validate(values)
    with torch.device("meta"):
        return backbone_depths(build_detector(config))


def test_depths_of_a_detector() -> None:
    depths = detector_depths("resnet18")
    assert {name.split(".")[1]: depth for name, depth in depths.items() if name.startswith("trunk.")} == {
        "conv1": 5, "layer1": 4, "layer2": 3, "layer3": 2,
    }  # fmt: skip
    assert {depth for name, depth in depths.items() if name.startswith("roi_head.conv5.")} == {1}
    assert not any(name.startswith("rpn.") or name.startswith("roi_head.class") for name in depths)


def test_depths_of_vgg_count_fc6_and_fc7_with_the_backbone() -> None:
    depths = detector_depths("vgg16")
    assert [depths[f"trunk.features.{number}.weight"] for number in (0, 7, 14, 21, 28)] == [5, 4, 3, 2, 1]
    assert depths["roi_head.conv5.classifier.0.weight"] == 1


def test_depths_of_a_traced_network() -> None:
    depths = detector_depths("torchvision/resnet18")
    assert [depths[f"trunk.{name}.weight"] for name in ("conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1")] == [
        5, 4, 3, 2,
    ]  # fmt: skip
    assert depths["roi_head.conv5.layer4.0.conv1.weight"] == 1


def test_a_pyramid_and_its_head_are_no_part_of_the_backbone() -> None:
    model = pyramid()
    depths = backbone_depths(model)
    assert {name.split(".")[2]: depth for name, depth in depths.items()} == {
        "conv1": 5, "layer1": 4, "layer2": 3, "layer3": 2, "layer4": 1,
    }  # fmt: skip
    assert all(name.startswith("trunk.backbone.") for name in depths)
    factors = rate_factors(model, TrainConfig(layer_decay=0.5, backbone_rate=0.1))
    assert factors["trunk.backbone.layer4.0.conv1.weight"] == pytest.approx(0.05)
    heads = ("trunk.neck.laterals.0.0.weight", "roi_head.conv5.fc1.weight", "rpn.conv.weight", "roi_head.class_scores.bias")
    assert {factors[name] for name in heads} == {1.0}


def test_a_classifiers_last_layer_is_a_head() -> None:
    model = ClassificationModel(build_backbone("cifar_resnet8", num_classes=3), ["a", "b", "c"])
    factors = rate_factors(model, TrainConfig(layer_decay=0.5, backbone_rate=0.1))
    assert factors["backbone.fc.weight"] == 1.0
    assert [factors[f"backbone.{name}.weight"] for name in ("layer3.0.conv1", "layer2.0.conv1", "layer1.0.conv1", "conv1")] == [
        pytest.approx(0.1 * 0.5**depth) for depth in (1, 2, 3, 4)
    ]


def test_groups_keep_norms_apart_and_frozen_parameters_out() -> None:
    model = ClassificationModel(build_backbone("cifar_resnet8", num_classes=3, freeze_stages=1), ["a", "b", "c"])
    groups = parameter_groups(model, TrainConfig(layer_decay=0.5, weight_decay=0.1))
    found = [(group["rate_factor"], group["weight_decay"], {p.ndim > 1 for p in group["params"]}) for group in groups]
    assert found == [
        (factor, decay, {decay > 0}) for factor in (1.0, 0.5, 0.25, 0.125) for decay in (0.1, 0.0)
    ]  # conv1 and bn1, at 0.0625, are frozen
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in model.parameters())


def test_the_rate_of_the_schedule_reaches_each_group_times_its_factor() -> None:
    model = ClassificationModel(build_backbone("cifar_resnet8", num_classes=3), ["a", "b", "c"])
    optimizer = build_optimizer(model, TrainConfig(layer_decay=0.5, backbone_rate=4.0))
    for rate in (0.3, 0.003):
        set_learning_rate(optimizer, rate)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        found = [rates[id(model.get_parameter(f"backbone.{name}.weight"))] / rate for name in ("fc", "layer3.0.conv1", "conv1")]
        assert found == pytest.approx([1.0, 4 * 0.5, 4 * 0.5**4])
        assert current_rate(optimizer) == pytest.approx(rate)


def test_the_loop_is_plain_adamw(tmp_path: Path) -> None:
    """Three steps computed again with nothing but torch."""
    torch.manual_seed(3)
    model = ToyModel(noisy=False)
    torch.manual_seed(3)
    reference = ToyModel(noisy=False)
    config = TrainConfig(
        batch_size=4, images_per_device=4, steps=3, learning_rate=0.01, weight_decay=0.3, optimizer="adamw", precision="fp32"
    )
    run(tmp_path, config, model=model)
    matrices = [p for p in reference.parameters() if p.ndim > 1]
    vectors = [p for p in reference.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999), weight_decay=0.3)
    for number in range(3):
        optimizer.zero_grad()
        torch.stack(list(reference(toy_batch(number)).values())).sum().backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_default_is_sgd_in_two_groups_to_the_last_bit(tmp_path: Path) -> None:
    """What versions before these keys computed: decayed matrices, vectors that are not, one rate."""
    torch.manual_seed(3)
    model, reference = ToyModel(noisy=False), ToyModel(noisy=False)
    reference.load_state_dict(model.state_dict())
    config = TrainConfig(batch_size=4, images_per_device=4, steps=5, learning_rate=0.1, weight_decay=0.01, precision="fp32")
    run(tmp_path, config, model=model)
    matrices, vectors = ([p for p in reference.parameters() if (p.ndim > 1) is many] for many in (True, False))
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True)
    for number in range(5):
        optimizer.zero_grad()
        torch.stack(list(reference(toy_batch(number)).values())).sum().backward()
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=0, atol=0)


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing of the engine runs after it."""


def killed_in(number: int) -> Any:
    def batches(first: int) -> Iterator[ToyBatch]:
        for index, value in enumerate(toy_batches(first), start=first):
            if index == number:
                raise Killed
            yield value

    return batches


@pytest.mark.parametrize("batch", [1, 14])
def test_adamw_resumes_exactly(tmp_path: Path, batch: int) -> None:
    run(tmp_path / "whole", ADAMW)
    with pytest.raises(Killed):
        run(tmp_path / "killed", ADAMW, batches=killed_in(batch))
    run(tmp_path / "killed", ADAMW, resume=True)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_checkpoint_without_the_new_keys_is_resumed(tmp_path: Path) -> None:
    """As earlier versions wrote them: SGD's groups without a factor, a config without the solver's new keys."""
    run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "old", batches=killed_in(14))
    last = torch.load(tmp_path / "old/last.pt", weights_only=True)
    for group in last["training"]["optimizer"]["param_groups"]:
        del group["rate_factor"]
    del last["training"]["scaler"], last["training"]["progress"]["skipped_steps"]
    for config in (last["training"]["scheduler"]["config"], last["metadata"]["config"]["train"]):
        for key in ("optimizer", "layer_decay", "backbone_rate"):
            del config[key]
    torch.save(last, tmp_path / "old/last.pt")
    run(tmp_path / "old", resume=True)
    assert_same_run(tmp_path / "old", tmp_path / "whole")


def test_another_optimizer_on_resume_is_one_line(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(TrainingError, match=r"the settings differ .*train.optimizer \(sgd -> adamw\)"):
        run(tmp_path, CONFIG.model_copy(update={"optimizer": "adamw"}), resume=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("exp_avg_sq", torch.full((8, 3), -1.0), "state.0.exp_avg_sq holds -1"),
        ("exp_avg", torch.zeros(7), r"state.0.exp_avg has shape \(7,\)"),
        ("exp_avg", None, "state.0.exp_avg is None"),
        ("step", torch.tensor(float("nan")), "state.0.step holds NaN"),
        ("step", torch.tensor(0.0), "state.0.step holds 0"),
        ("momentum_buffer", torch.zeros(8, 3), "state.0 has .*, not exp_avg and exp_avg_sq and step"),
    ],
)
def test_what_adamw_cannot_go_on_with(tmp_path: Path, key: str, value: Any, message: str) -> None:
    config = ADAMW.model_copy(update={"steps": 2, "lr_drops": ()})
    run(tmp_path, config)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    last["training"]["optimizer"]["state"][0][key] = value
    torch.save(last, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, config.model_copy(update={"steps": 3}), resume=True)


def test_sgds_state_is_not_taken_for_adamws(tmp_path: Path) -> None:
    run(tmp_path)
    sgd = torch.load(tmp_path / "last.pt", weights_only=True)["training"]["optimizer"]
    run(tmp_path / "adamw", ADAMW)
    last = torch.load(tmp_path / "adamw/last.pt", weights_only=True)
    last["training"]["optimizer"] = sgd
    torch.save(last, tmp_path / "adamw/last.pt")
    with pytest.raises(CheckpointError, match=r"param_groups.0.(weight_decay|betas) is "):
        run(tmp_path / "adamw", ADAMW.model_copy(update={"steps": 13}), resume=True)


def test_a_frozen_model_is_refused_with_adamw_too() -> None:
    with pytest.raises(TrainingError, match="no trainable parameter"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), TrainConfig(optimizer="adamw"))
