"""Weights of other projects, renamed and checked: every tensor has its place or a reason why it is left out."""

from backbones.conversion.networks import BACKBONE_FORMATS, ConvertedBackbone, backbone_format, convert_backbone
from backbones.conversion.rules import Entry, Rule, State, rename, state_of

__all__ = [
    "BACKBONE_FORMATS",
    "ConvertedBackbone",
    "Entry",
    "Rule",
    "State",
    "backbone_format",
    "convert_backbone",
    "rename",
    "state_of",
]
