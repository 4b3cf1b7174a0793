"""Weights files, good and bad. Every refusal is one line that names the file."""

import argparse
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from backbones import (
    CheckpointError,
    build_backbone,
    build_c4,
    load_checkpoint,
    load_state,
    save_checkpoint,
)
from backbones.files import remove_leftovers
from backbones.weights.conversion import convert_backbone

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def state():
    """A ResNet-18 with seven classes, as torchvision saves it."""
    return torchvision.models.resnet18(num_classes=7).state_dict()


def refusal(path, name="resnet18", **options):
    """The message of the CheckpointError that loading this file must raise: one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        build_backbone(name, path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_missing_and_unreadable_files(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.pth")
    assert "No such file" in refusal(tmp_path / "none.safetensors")
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".legacy.pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files(tmp_path, state, suffix, share):
    path = tmp_path / f"cut{suffix}"
    small = {key: state[key] for key in ("conv1.weight", "fc.weight", "fc.bias")}
    if suffix == ".safetensors":
        save_file(small, path)
    else:
        torch.save(small, path, _use_new_zipfile_serialization=suffix == ".pth")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "cut short or damaged" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"hello\n" * 50, b"{}", b"\x89PNG\r\n", bytes(300)], ids=repr)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_foreign_files(tmp_path, content, suffix):
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    assert "damaged" in refusal(path)


class Exploit:
    """A pickle that would make a file when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_pickles_with_code_are_refused_and_not_run(tmp_path, state):
    torch.save({"x": Exploit(str(tmp_path / "owned"))}, tmp_path / "evil.pth")
    torch.save({"model": dict(state), "args": argparse.Namespace(lr=0.1)}, tmp_path / "args.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("evil.pth", "args.pth", "module.pth"):
        assert "could run code" in refusal(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_files_that_hold_something_else(tmp_path, state):
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    assert "holds a Tensor" in refusal(tmp_path / "tensor.pth")
    torch.save({"model": dict(state), "epoch": 3}, tmp_path / "nested.pth")
    assert "['model', 'epoch']" in refusal(tmp_path / "nested.pth")
    torch.save({1: torch.ones(2)}, tmp_path / "numbered.pth")
    assert "[1]" in refusal(tmp_path / "numbered.pth")
    torch.save({}, tmp_path / "empty.pth")
    assert "missing keys: 'conv1.weight'" in refusal(tmp_path / "empty.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights(tmp_path, state, value):
    bad = state["layer3.0.conv1.weight"].clone()
    bad[0, 0, 0, 0] = value
    torch.save(state | {"layer3.0.conv1.weight": bad}, tmp_path / "nan.pth")
    assert "'layer3.0.conv1.weight' holds NaN or infinity" in refusal(tmp_path / "nan.pth")


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("conv1.weight", lambda x: x.double().fill_(1e300), "'conv1.weight' holds numbers too large for float32"),
        ("conv1.weight", lambda x: x.to(torch.int8), "'conv1.weight' holds int8"),
        ("conv1.weight", lambda x: x.to(torch.int64), "'conv1.weight' holds int64"),
        ("conv1.weight", lambda x: x > 0, "'conv1.weight' holds bool"),
        ("conv1.weight", lambda x: x.to(torch.complex64), "'conv1.weight' holds complex64"),
        ("conv1.weight", lambda x: x.to(torch.float8_e4m3fn), "'conv1.weight' holds float8_e4m3fn"),
        ("bn1.running_var", lambda x: x.clone().neg(), "'bn1.running_var' is negative"),
        ("bn1.running_mean", lambda x: torch.full_like(x, float("nan")), "'bn1.running_mean' holds NaN"),
        ("bn1.num_batches_tracked", lambda x: x - 10, "'bn1.num_batches_tracked' must hold whole numbers"),
        ("bn1.num_batches_tracked", lambda x: x * float("nan"), "'bn1.num_batches_tracked' must hold whole numbers"),
        ("conv1.weight", lambda x: x.to("meta"), "a tensor without values"),
        ("fc.bias", lambda x: x.to_sparse(), "a sparse or nested tensor"),
    ],
)
def test_weights_are_numbers_that_the_model_computes_with(tmp_path, state, key, change, message):
    bad = dict(state) | {key: change(state[key])}
    with pytest.raises(CheckpointError, match=message):
        load_state(build_backbone("resnet18", num_classes=7), bad, "x")
    torch.save(bad, tmp_path / "bad.pth")
    assert message in refusal(tmp_path / "bad.pth", num_classes=7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_numbers_are_cast(tmp_path, state, dtype):
    cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    torch.save(cast, tmp_path / "cast.pth")
    loaded = build_backbone("resnet18", tmp_path / "cast.pth", num_classes=7).state_dict()
    for key, value in loaded.items():
        torch.testing.assert_close(value, cast[key].to(value.dtype), rtol=0, atol=0)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "backbone.", "model.", "net.", "module._orig_mod.", "model.backbone."]
)
def test_a_wrappers_prefix_is_left_out_and_said(tmp_path, state, prefix, caplog):
    wrapped = {prefix + key: value for key, value in state.items()}
    torch.save(wrapped, tmp_path / "x.pth")
    for num_classes in (7, None):
        caplog.clear()
        loaded = build_backbone("resnet18", tmp_path / "x.pth", num_classes=num_classes).state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in loaded)
        assert f"'{prefix}conv1.weight' is 'conv1.weight'" in caplog.text
    trunk, head = build_c4("resnet18", tmp_path / "x.pth")
    assert torch.equal(trunk.state_dict()["conv1.weight"], state["conv1.weight"])
    assert torch.equal(head.state_dict()["layer4.0.conv1.weight"], state["layer4.0.conv1.weight"])
    assert list(wrapped) == [prefix + key for key in state]


def test_averaged_weights_of_torch(tmp_path, state):
    model = torchvision.models.resnet18(num_classes=7)
    model.load_state_dict(state)
    averaged = AveragedModel(model).state_dict()
    torch.save(averaged, tmp_path / "x.pth")
    loaded = build_backbone("resnet18", tmp_path / "x.pth", num_classes=7).state_dict()
    assert "n_averaged" in averaged and all(torch.equal(loaded[key], state[key]) for key in loaded)
    converted = convert_backbone({"model": averaged}, "x")
    assert torch.equal(converted.state["conv1.weight"], state["conv1.weight"])
    assert [entry.note for entry in converted.entries if entry.source == "n_averaged"] == ["a wrapper's own"]


def test_another_networks_keys_are_named(tmp_path, state):
    torch.save({f"encoder_{key}\n": value for key, value in state.items()}, tmp_path / "x.pth")
    message = refusal(tmp_path / "x.pth")
    assert "missing keys: 'conv1.weight'" in message and "the file has 'encoder_conv1.weight\\n'" in message


def test_a_part_that_was_compiled(state):
    model = build_backbone("resnet18", num_classes=7)
    compiled = {key.replace("layer1.", "layer1._orig_mod."): value for key, value in state.items()}
    load_state(model, compiled, "x")
    torch.testing.assert_close(model.state_dict(), dict(state), rtol=0, atol=0)


def test_nothing_is_loaded_when_something_is_wrong(state):
    model = build_backbone("resnet18", num_classes=7)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="mine does not fit the model: 1 keys without a tensor: 'fc.bias'"):
        load_state(model, state | {"fc.bias": 3}, "mine")
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_save_and_load_round_trip_in_a_new_folder(tmp_path):
    contents = {"format": "resdet", "model": {"a": torch.arange(3)}, "steps": [1, 2.5, "x", None, (True,)]}
    save_checkpoint(contents, tmp_path / "runs" / "a" / "last.pt")
    loaded = load_checkpoint(tmp_path / "runs" / "a" / "last.pt")
    torch.testing.assert_close(loaded.pop("model"), contents["model"])
    assert loaded == {key: value for key, value in contents.items() if key != "model"}
    assert [file.name for file in (tmp_path / "runs" / "a").iterdir()] == ["last.pt"]


@contextlib.contextmanager
def no_space_beyond(size):
    """A limit on file sizes: writing past it fails as a full disk does."""
    resource = pytest.importorskip("resource")  # not on Windows
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_no_space_left_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint({"step": 1}, path)
    with (
        no_space_beyond(100_000),
        pytest.raises(CheckpointError, match=r"cannot write checkpoint .*last\.pt: .*; free some space"),
    ):
        save_checkpoint({"step": 2, "model": torch.zeros(100_000)}, path)
    assert load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_place_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot write checkpoint .*last.pt"):
        save_checkpoint({}, tmp_path / "file" / "last.pt")


KILLED = """
import os, sys
from pathlib import Path
import torch
from backbones.files import remove_leftovers
from backbones import save_checkpoint
path = Path(sys.argv[1])
save_checkpoint({"step": 1}, path)
os.fsync = lambda descriptor: os._exit(9)   # the process dies before the new file is in place
save_checkpoint({"step": 2, "model": torch.zeros(1000)}, path)
"""


def test_a_process_killed_while_saving_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    result = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 9, result.stderr
    assert load_checkpoint(path) == {"step": 1}
    save_checkpoint({"step": 3}, path)  # what was left behind is in nobody's way
    remove_leftovers(path)
    assert load_checkpoint(path) == {"step": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
