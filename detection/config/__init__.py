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
    IlsvrcDetSource,
    IlsvrcDetSplit,
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
    load_loc_config,
    override_config,
    parse_config,
    read_thresholds,
    with_weights,
)
from detection.config.limits import LOADER_TIMEOUT, MAX_PIXELS, Section
from detection.config.localiser import (
    LocConfig,
    LocDataConfig,
    LocRcnnConfig,
    LocRpnConfig,
    LocSplit,
    LocTestConfig,
    LocTrainConfig,
)
from detection.config.model_section import FpnConfig, ModelConfig
from detection.config.packaged import config_file, list_configs
from detection.config.roi_section import MaskConfig, MaskTargets, Pasting, Pooling, RoiConfig
from detection.config.rpn_section import RpnConfig
from detection.config.schema import Config
from detection.config.test_section import TestConfig
from detection.config.train_section import Precision, TrainConfig

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
    "FpnConfig",
    "HeldOut",
    "IlsvrcDetSource",
    "IlsvrcDetSplit",
    "LocConfig",
    "LocDataConfig",
    "LocRcnnConfig",
    "LocRpnConfig",
    "LocSplit",
    "LocTestConfig",
    "LocTrainConfig",
    "MaskConfig",
    "MaskTargets",
    "ModelConfig",
    "OnBadImage",
    "OnMissingImage",
    "Pasting",
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
    "load_loc_config",
    "override_config",
    "parse_config",
    "read_thresholds",
    "with_weights",
]
