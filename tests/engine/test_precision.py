"""bf16 is chosen only where the hardware computes in it."""

from __future__ import annotations

import logging

import pytest
import torch

from detection.engine import precision
from detection.engine.precision import autocast, resolve_precision

CPU = torch.device("cpu")


def fake_cpu(monkeypatch: pytest.MonkeyPatch, *, onednn: bool, x86: bool, machine: str = "x86_64") -> None:
    monkeypatch.setattr(precision, "_onednn_takes_bf16", lambda: onednn)
    monkeypatch.setattr(precision, "_x86_multiplies_bf16", lambda: x86)
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)


@pytest.mark.parametrize(
    ("onednn", "x86", "machine", "expected"),
    [
        (True, True, "x86_64", torch.bfloat16),
        (True, False, "x86_64", None),  # oneDNN would emulate it
        (False, True, "x86_64", None),
        (True, False, "aarch64", torch.bfloat16),
        (False, False, "arm64", None),
    ],
)
def test_auto_follows_the_hardware(
    monkeypatch: pytest.MonkeyPatch, onednn: bool, x86: bool, machine: str, expected: torch.dtype | None
) -> None:
    fake_cpu(monkeypatch, onednn=onednn, x86=x86, machine=machine)
    assert resolve_precision("auto", CPU) is expected
    assert resolve_precision("fp32", CPU) is None


def test_explicit_bf16_is_obeyed_with_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    fake_cpu(monkeypatch, onednn=True, x86=False)
    with caplog.at_level(logging.WARNING):
        assert resolve_precision("bf16", "cpu") is torch.bfloat16
    assert "no bf16 arithmetic" in caplog.text


def test_private_names_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert precision._x86_multiplies_bf16() is False


def test_autocast_applies_the_dtype() -> None:
    layer = torch.nn.Linear(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert layer(torch.ones(1, 2)).dtype is torch.bfloat16
    with autocast(CPU, None):
        assert layer(torch.ones(1, 2)).dtype is torch.float32
