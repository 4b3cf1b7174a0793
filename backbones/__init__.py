"""Backbones for this and other projects: models and weights only, on torch alone.

from backbones import build_backbone
model = build_backbone("resnet50", norm="frozen_bn")
features = model(model.preprocessing.normalize(images))     # uint8 RGB (N, 3, H, W) -> {"c2": ..., "c5": ...}
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from backbones.errors import BackboneError, CheckpointError

if TYPE_CHECKING:
    from backbones.base import Backbone, C4Head, C4Trunk, RegionHead, Trunk
    from backbones.build import build_backbone, build_c4, build_fpn, list_backbones, load_c4
    from backbones.c4 import split_modules
    from backbones.cifar import CifarResNet
    from backbones.fpn import FeaturePyramid, FpnTrunk
    from backbones.layers import Layer, layer_list, multiply_adds
    from backbones.norm import FrozenBatchNorm2d, freeze_batch_norm, recompute_bn_statistics
    from backbones.options import BackboneOptions
    from backbones.preprocessing import IMAGENET_PREPROCESSING, Preprocessing
    from backbones.registry import BACKBONES, register_backbone, register_family
    from backbones.resnet import ResNet
    from backbones.vgg import VGG16
    from backbones.weights.files import load_checkpoint, load_state, save_checkpoint
    from backbones.weights.zoo import list_weights

_HOMES = {
    "base": ("Backbone", "C4Head", "C4Trunk", "RegionHead", "Trunk"),
    "build": ("build_backbone", "build_c4", "build_fpn", "list_backbones", "load_c4"),
    "c4": ("split_modules",),
    "cifar": ("CifarResNet",),
    "fpn": ("FeaturePyramid", "FpnTrunk"),
    "layers": ("Layer", "layer_list", "multiply_adds"),
    "norm": ("FrozenBatchNorm2d", "freeze_batch_norm", "recompute_bn_statistics"),
    "options": ("BackboneOptions",),
    "preprocessing": ("IMAGENET_PREPROCESSING", "Preprocessing"),
    "registry": ("BACKBONES", "register_backbone", "register_family"),
    "resnet": ("ResNet",),
    "vgg": ("VGG16",),
    "weights.files": ("load_checkpoint", "load_state", "save_checkpoint"),
    "weights.zoo": ("list_weights",),
}

__all__ = [
    "BACKBONES",
    "IMAGENET_PREPROCESSING",
    "VGG16",
    "Backbone",
    "BackboneError",
    "BackboneOptions",
    "C4Head",
    "C4Trunk",
    "CheckpointError",
    "CifarResNet",
    "FeaturePyramid",
    "FpnTrunk",
    "FrozenBatchNorm2d",
    "Layer",
    "Preprocessing",
    "RegionHead",
    "ResNet",
    "Trunk",
    "build_backbone",
    "build_c4",
    "build_fpn",
    "freeze_batch_norm",
    "layer_list",
    "list_backbones",
    "list_weights",
    "load_c4",
    "load_checkpoint",
    "load_state",
    "multiply_adds",
    "recompute_bn_statistics",
    "register_backbone",
    "register_family",
    "save_checkpoint",
    "split_modules",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; errors and file names do not need it.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"backbones.{module}"), name)
    raise AttributeError(f"module 'backbones' has no attribute '{name}'")
