"""The head on a pyramid's regions: two fully connected layers (FPN, section 4.2), after convolutions where asked for.

R regions, C channels, S x S cells. It stands where a C4 detector has conv5.
"""

from __future__ import annotations

from torch import Tensor, nn

from backbones.base import RegionHead
from backbones.blocks import make_norm
from backbones.convolution import Conv2d
from detection.config import FpnConfig


class TwoLayerHead(RegionHead):
    """Pooled features (R, C, S, S) -> (R, channels). R may be 0."""

    def __init__(self, in_channels: int, pool_size: int, config: FpnConfig) -> None:
        super().__init__()
        self.pool_size = pool_size
        self.channels = config.head_channels
        self.convs = conv_layers(in_channels, config.channels, config.head_convs, config)
        channels = config.channels if config.head_convs else in_channels
        self.fc1 = nn.Linear(channels * pool_size**2, config.head_channels)
        self.fc2 = nn.Linear(config.head_channels, config.head_channels) if config.head_fcs == 2 else None
        for layer in filter(None, (self.fc1, self.fc2)):
            nn.init.kaiming_uniform_(layer.weight, a=1)  # as the pyramid's layers
            nn.init.zeros_(layer.bias)

    def forward(self, pooled_features: Tensor) -> Tensor:
        """Pooled features of R regions -> one vector per region."""
        x = self.fc1(self.convs(pooled_features).flatten(1)).relu()
        return x if self.fc2 is None else self.fc2(x).relu()


def conv_layers(in_channels: int, channels: int, count: int, config: FpnConfig) -> nn.Sequential:
    """3x3 convolutions that keep the size, each with the config's norm and a ReLU: (R, in_channels, S, S) ->
    (R, channels, S, S)."""
    layers: list[nn.Module] = []
    for number in range(count):
        conv = Conv2d(channels if number else in_channels, channels, 3, padding=1, bias=config.norm == "none")
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        norm = [] if config.norm == "none" else [make_norm(config.norm, channels)]
        layers.append(nn.Sequential(conv, *norm, nn.ReLU()))
    return nn.Sequential(*layers)
