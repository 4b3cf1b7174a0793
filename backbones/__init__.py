"""Backbones for this and other projects: models and weights only, on torch and fvcore.

from backbones import build_backbone
model = build_backbone("resnet50", norm="frozen_bn")
features = model(model.preprocessing.normalize(images))     # uint8 RGB (N, 3, H, W) -> {"c2": ..., "c5": ...}
"""

from backbones.base import Backbone, C4Head, C4Trunk
from backbones.c4 import load_c4, split_modules
from backbones.cifar import CifarResNet
from backbones.errors import BackboneError, CheckpointError
from backbones.layers import Layer, layer_list, multiply_adds
from backbones.norm import FrozenBatchNorm2d, freeze_batch_norm, recompute_bn_statistics
from backbones.preprocessing import IMAGENET_PREPROCESSING, Preprocessing
from backbones.registry import BACKBONES, build_backbone, build_c4, list_backbones, register_backbone, register_family
from backbones.resnet import ResNet  # registers its nets, as do cifar and vgg
from backbones.vgg import VGG16
from backbones.weights.files import load_checkpoint, load_state, save_checkpoint
from backbones.weights.zoo import list_weights

__all__ = [
    "BACKBONES",
    "IMAGENET_PREPROCESSING",
    "Backbone",
    "BackboneError",
    "C4Head",
    "C4Trunk",
    "CheckpointError",
    "CifarResNet",
    "FrozenBatchNorm2d",
    "Layer",
    "Preprocessing",
    "ResNet",
    "VGG16",
    "build_backbone",
    "build_c4",
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
