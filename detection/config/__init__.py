"""An experiment as one frozen value: `load_config(file)` reads it, `Config` is its schema.

Imports neither torch nor anything else of `detection` but its errors: a mistake in a config is found at once."""

from detection.config.classifier import (
    ClassifierConfig,
    ClassifierDataConfig,
    ClassifierModelConfig,
    ClassifierTestConfig,
    ClassifierTrainConfig,
)
from detection.config.data_section import (
    SPLITS,
    Augmentation,
    BoxesIn,
    CocoSource,
    DataConfig,
    FolderFormat,
    FolderSource,
    HeldOut,
    OnBadImage,
    OnMissingImage,
    Resizing,
    Source,
    SplitName,
    VocSource,
)
from detection.config.files import (
    config_of_text,
    dump_config,
    load_classifier_config,
    load_config,
    override_config,
    parse_config,
    read_thresholds,
    with_weights,
)
from detection.config.limits import LOADER_TIMEOUT, MAX_PIXELS, Section
from detection.config.packaged import config_file, list_configs
from detection.config.schema import Config, ModelConfig, Pooling, Precision, RoiConfig, RpnConfig, TestConfig, TrainConfig

__all__ = [
    "LOADER_TIMEOUT",
    "MAX_PIXELS",
    "SPLITS",
    "Augmentation",
    "BoxesIn",
    "ClassifierConfig",
    "ClassifierDataConfig",
    "ClassifierModelConfig",
    "ClassifierTestConfig",
    "ClassifierTrainConfig",
    "CocoSource",
    "Config",
    "DataConfig",
    "FolderFormat",
    "FolderSource",
    "HeldOut",
    "ModelConfig",
    "OnBadImage",
    "OnMissingImage",
    "Pooling",
    "Precision",
    "Resizing",
    "RoiConfig",
    "RpnConfig",
    "Section",
    "Source",
    "SplitName",
    "TestConfig",
    "TrainConfig",
    "VocSource",
    "config_file",
    "config_of_text",
    "dump_config",
    "list_configs",
    "load_classifier_config",
    "load_config",
    "override_config",
    "parse_config",
    "read_thresholds",
    "with_weights",
]
