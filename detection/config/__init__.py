"""An experiment as one frozen value: `load_config(file)` reads it, `Config` is its schema.

Imports neither torch nor anything else of `detection` but its errors: a mistake in a config is found at once."""

from detection.config.files import dump_config, load_classifier_config, load_config, override_config, parse_config
from detection.config.schema import (
    Augmentation,
    ClassifierConfig,
    ClassifierDataConfig,
    ClassifierModelConfig,
    ClassifierTestConfig,
    ClassifierTrainConfig,
    CocoSource,
    Config,
    DataConfig,
    ModelConfig,
    Resizing,
    RoiConfig,
    RpnConfig,
    Section,
    Source,
    TestConfig,
    TrainConfig,
    VocSource,
)

__all__ = [
    "Augmentation",
    "ClassifierConfig",
    "ClassifierDataConfig",
    "ClassifierModelConfig",
    "ClassifierTestConfig",
    "ClassifierTrainConfig",
    "CocoSource",
    "Config",
    "DataConfig",
    "ModelConfig",
    "Resizing",
    "RoiConfig",
    "RpnConfig",
    "Section",
    "Source",
    "TestConfig",
    "TrainConfig",
    "VocSource",
    "dump_config",
    "load_classifier_config",
    "load_config",
    "override_config",
    "parse_config",
]
