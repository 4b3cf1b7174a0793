"""A new experiment for a folder of labelled images: what the folder is, and a commented config that fits it and the machine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.errors import printable
from backbones.weights.files import load_checkpoint
from backbones.weights.format import is_own_format, parse_checkpoint
from backbones.weights.zoo import find_published
from detection.config import Config, DataConfig, config_of_text, parse_config
from detection.config.yaml_text import parse_yaml
from detection.data.anchor_advice import suggest_anchors
from detection.data.catalog import load_split
from detection.data.folder import config_of_folder
from detection.data.settle import settle_config
from detection.device import parse_device
from detection.errors import ConfigError, DatasetError
from detection.files import exists, expand_home, write_whole
from detection.structures import Record
from detection.training.proposal import (
    BATCH,
    LEAST_OBJECT,
    RATE_PER_IMAGE,
    DataSummary,
    detections_of,
    input_side,
    longer_side,
    mirrors,
    steps_of,
    summarise,
    tile_side,
    training_sides,
)
from detection.weights.checkpoint import checkpoint_config

STANDARD_WEIGHTS = Path("detectron2/COCO-Detection/faster_rcnn_R_50_C4_3x")
"""A detector of COCO's 80 classes: what it has learnt of objects serves others, too."""
CLASSIFIER_BASE = "resdet:modern/voc_r50"
DETECTRON2_BASE = "resdet:detectron2/coco_r50_c4"
FRACTION = 0.2  # of the images, held out for validation
MISFIT = 0.1  # share of the objects that no anchor of a detector fits, from which on they are replaced
# Fewer proposals and regions: on a CPU they are most of a step.
LIGHT = {
    "rpn": {"pre_nms_train": 2000, "post_nms_train": 500, "pre_nms_test": 1000, "post_nms_test": 300},
    "roi": {"sample_size": 128},
}

Values = dict[str, Any]

_PLAIN = re.compile(r"[A-Za-z_/][\w./-]*", re.ASCII)  # texts that need no quotes, but for words such as "no"


@dataclass(frozen=True)
class NewExperiment:
    """A config as text with comments, the same config read, and what was found out about the data."""

    text: str
    config: Config
    findings: tuple[str, ...]


def write_new_experiment(
    file: Path, data: str | Path, weights: str | Path | None = None, *, output_dir: Path | None = None
) -> NewExperiment:
    """`new_experiment`, written into a new file. Raises what it raises, and ConfigError where the file is there already."""
    if exists(file):
        raise ConfigError(f"{file} is there already, and is not replaced: name another file")
    new = new_experiment(data, weights or STANDARD_WEIGHTS, output_dir=output_dir, name=str(file))
    write_whole(file, new.text)
    return new


def new_experiment(
    data: str | Path,
    weights: str | Path = STANDARD_WEIGHTS,
    *,
    output_dir: Path | None = None,
    name: str = "my.yaml",
    device: str = "auto",
) -> NewExperiment:
    """A config that trains a detector on a folder of labelled images, or on a file of labels, of any kind that is recognised.

    It starts from `weights`, a file or a name of the zoo, and writes to `output_dir`, by default runs/ and the folder's name.
    Where the folder has no validation images, a fifth of the others is held out. `name` is what its comments call the config;
    `device`, a word for `find_device`, is what it will be trained on. All annotations are read, no image is decoded. Raises
    DatasetError for a folder that is not recognised or cannot be trained on, CheckpointError or ConfigError for weights.
    """
    findings: list[str] = []
    architecture = _architecture(Path(weights))
    root = expand_home(data).absolute()
    if not exists(root):
        raise DatasetError(f"there is no file or folder {root}")
    folder = config_of_folder(root, tell=findings.append)
    sources = _sources(folder.data, findings.append)
    settled = settle_config(parse_config(Config, {"data": {"classes": "auto", **sources}}, str(root)), findings.append).data
    records = load_split(settled, "train").records
    kind = parse_device(device).type
    # Of other GPUs nothing has been measured: they get what even a CPU can do.
    values = _values(settled.class_names, sources, summarise(records), architecture, "cuda" if kind == "cuda" else "cpu")
    values["output_dir"] = str(output_dir or run_folder(root))
    values["rpn"] |= _anchors(records, values)
    counts = f"{len(records)} images to train on, {len(settled.class_names)} classes"
    text = _as_text(f"{printable(root.name)}: {counts}, for a {kind.upper()}", name, values)
    return NewExperiment(text, config_of_text(text, name), tuple(findings))


def _sources(data: DataConfig, tell: Callable[[str], object]) -> Values:
    """data.train, data.val and data.test as plain values; where there is no val, a share of train."""
    splits = data.model_dump(mode="json", exclude_defaults=True, include={"train", "val", "test"})
    if "val" not in splits:
        tell(f"no validation images: {FRACTION:.0%} of the training images are held out")
    return {"train": [], "val": {"fraction": FRACTION}, "test": [], **splits}


def run_folder(data: Path) -> Path:
    """Where the run on a folder of images goes: runs/ and its name."""
    return Path("runs") / (re.sub(r"[^\w.-]+", "_", data.absolute().stem).strip("._") or "detector")


def _architecture(weights: Path) -> Values:
    """`base` and the sections model, rpn and roi for the network of these weights. Raises CheckpointError, ConfigError."""
    text = str(weights)
    if find_published(weights) is None:
        return {"base": CLASSIFIER_BASE, **_architecture_of_file(weights)}
    if text.startswith("detectron2/"):
        depth = "101" if "R_101" in text else "50"
        return {"base": DETECTRON2_BASE, "model": {"backbone": f"resnet{depth}", "weights": text}}
    if text.startswith("torchvision/"):
        backbone = text.removeprefix("torchvision/").removesuffix("_v2")
        return {"base": CLASSIFIER_BASE, "model": {"backbone": backbone, "weights": text}}
    raise ConfigError(
        f"what network {text} needs is not known here: convert it with `resdet convert-weights` and give that file"
    )


def _architecture_of_file(weights: Path) -> Values:
    contents = load_checkpoint(weights)
    if not is_own_format(contents):
        raise ConfigError(f"{weights} is no checkpoint of resdet: convert it with `resdet convert-weights` first")
    checkpoint = parse_checkpoint(contents, str(weights))
    if checkpoint.metadata.kind == "classifier":
        own = checkpoint.metadata.config.get("model")
        model = own if isinstance(own, Mapping) else {}
        return {"model": {**_network(model), "weights": str(weights.absolute())}}
    config = checkpoint_config(checkpoint, weights).model_dump(mode="json")
    base = config_of_text(f"base: {CLASSIFIER_BASE}", CLASSIFIER_BASE).model_dump(mode="json")
    heads = {name: {key: value for key, value in config[name].items() if base[name][key] != value} for name in ("rpn", "roi")}
    return {"model": {**_network(config["model"]), "weights": str(weights.absolute())}, **heads}


def _network(model: Mapping[str, Any]) -> Values:
    """Of a section `model`, what the weights are of."""
    return {key: model[key] for key in ("backbone", "stride_in_1x1", "stem_pool") if key in model}


def _values(class_names: tuple[str, ...], sources: Values, data: DataSummary, architecture: Values, device: str) -> Values:
    """All keys of the config but the anchors and the output folder."""
    side = input_side(data, device)
    batch = BATCH[device]
    steps = steps_of(data.num_images, batch, device)
    rate = round(RATE_PER_IMAGE * batch, 6)
    light = LIGHT if device == "cpu" else {"rpn": {}, "roi": {}}
    values = {
        "base": architecture["base"],
        "model": architecture["model"],
        "rpn": architecture.get("rpn", {}) | light["rpn"],
        "roi": architecture.get("roi", {}) | light["roi"],
        "data": {
            "classes": list(class_names),
            **sources,
            "shorter_sides": training_sides(side),
            "longer_side": longer_side(side),
            "augmentations": [{"HorizontalFlip": {"p": 0.5}}] if mirrors(class_names) else [],
        },
        "train": {
            **{"batch_size": batch, "images_per_device": batch, "learning_rate": rate, "schedule": "cosine", "steps": steps},
            **{"lr_drops": [], "warmup_steps": max(min(500, steps // 10), 1), "clip_norm": 10},
            **{"eval_every": max(steps // 5, 1), "checkpoint_every": max(min(steps // 10, 500), 1)},
        },
        "test": {
            "shorter_side": side,
            "longer_side": longer_side(side),
            "max_detections": detections_of(data.most_objects),
        },
    }
    tile = tile_side(data, side)
    if tile is not None:
        values["data"]["tile"] = values["test"]["tile"] = tile
    return values


def _anchors(records: Sequence[Record], values: Values) -> Values:
    """Anchors that fit the objects better than those of the base or of the weights; none where these do.

    Other anchors cost a detector what its RPN has learnt, so its own have to be far from fitting.
    """
    advice = suggest_anchors(records, config_of_text(_as_text("", "", values), "the new config"))
    is_detector = values["base"] == DETECTRON2_BASE or "channels" in values["rpn"]
    if advice.suggested is None or (is_detector and advice.current.negative < MISFIT):
        return {}
    return {"anchor_sizes": list(advice.suggested.sizes), "anchor_ratios": list(advice.suggested.ratios)}


COMMENTS = {
    "model": "what the training starts from: a file, or a name of docs/weights.md",
    "rpn": "anchor sizes fit the boxes of the data; `resdet check-dataset` shows how well",
    "data": "where the images are. `classes` may be renamed or left out: `rename: {van: car}`, `drop: [other]`",
    "train": "rate and steps are meant for `batch_size`, and scaled for another. Out of memory? Lower images_per_device",
    "test": f"small objects should have {LEAST_OBJECT} px or more in images of this size",
}


def _as_text(title: str, name: str, values: Values) -> str:
    """YAML with a comment above each section; a line per key, long lists and mappings in one line."""
    lines = [f"# {title}", f"#   resdet train {name}", f"#   resdet demo FOLDER --weights {values.get('output_dir')}/best.pt"]
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += [f"# {COMMENTS[key]}"] if key in COMMENTS else []
            lines += [f"{key}:", *(f"  {inner}: {_flow(item)}" for inner, item in value.items())]
        elif not isinstance(value, Mapping):
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    """A value in one line of YAML; texts that YAML would read as something else are in quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and parse_yaml(value, "a text") == value:
        return value
    return json.dumps(value, ensure_ascii=False)
