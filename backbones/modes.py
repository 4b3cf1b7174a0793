"""Training and evaluation mode of a network, changed for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def restored_modes(network: nn.Module) -> Iterator[None]:
    """When the block ends, each module of the network is again in the mode, training or evaluation, that it had before."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
