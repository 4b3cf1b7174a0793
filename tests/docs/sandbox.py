"""A folder in which the commands of the pages run as they are written: what they name exists there, small.

The backbone is docs/examples/plugin's, offered as an installed package offers it. Configs have the pages' names and build on
the real ones.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from backbones import build_backbone, save_checkpoint
from detection.cli.main import main
from tests.data.pictures import CLASSES, write_coco, write_devkit
from tests.docs.commands import CommandLine
from tests.docs.markdown import ROOT, blocks
from tests.ilsvrc_kit import write_kit
from tests.localisation.loc_kit import write_list, write_xml
from tests.media_files import write_frames, write_picture, write_video
from tests.pretraining.class_folders import pack, write_split

# What the sandbox has -> the names that pages give it.
NAMES = {
    "detector/best.pt": (
        *("A.pt", "B.pt", "C.pt", "a/best.pt", "b/best.pt", "c/best.pt", "plain.pt", "runs/bccd_r18/best.pt"),
        *("runs/bccd/s0/best.pt", "runs/coco_r101/best.pt", "runs/mine/best.pt", "runs/pets/best.pt", "runs/voc_r101/last.pt"),
        *("runs/quickstart/detector/best.pt", "runs/quickstart/detector/last.pt", "runs/quickstart_long/detector/last.pt"),
        *("runs/x/best.pt", "runs/ilsvrc_det_r101/best.pt", "torchvision/fasterrcnn_resnet50_fpn_v2"),
        "runs/photos/config_0/last.pt",
        "detectron2/COCO-Detection/faster_rcnn_R_50_C4_1x",
    ),
    "context/best.pt": (
        *("context_0.pt", "context_1.pt", "context_2.pt"),
        *("runs/bccd/c0/best.pt", "runs/bccd/c1/best.pt", "runs/bccd/c2/best.pt"),
        *("runs/photos/context_0/last.pt", "runs/photos/context_1/last.pt", "runs/photos/context_2/last.pt"),
    ),
    "classifier/model.pt": (
        *("r34.pt", "r50.pt", "r101.pt", "runs/cifar10_r18/model.pt", "runs/imagenet_r50/model.pt"),
        *("torchvision/resnet50", "torchvision/resnet101"),
    ),
    "localiser/rpn/best.pt": ("a/rpn.pt", "b/rpn.pt"),
    "localiser/rcnn/best.pt": ("a/rcnn.pt", "b/rcnn.pt"),
    "cifar/model.pt": ("runs/cifar_plain20/model.pt", "runs/cifar_resnet20/model.pt", "runs/plain20/model.pt"),
    # Folders of runs.
    "detector": ("runs/A", "runs/B", "runs/bccd_r18", "runs/bccd_context", "runs/pets"),
    "localiser": ("runs/ilsvrc_loc_r101",),
    "cifar": ("runs/cifar_plain20", "runs/cifar_plain56", "runs/cifar_resnet20", "runs/cifar_resnet56", "runs/plain20"),
    # Files.
    "photo.jpg": ("image.jpg", "datasets/digits/VOCdevkit/VOC2007/JPEGImages/test_0000*.jpg"),
    "film.mp4": ("film.mp4",),
    "loop.gif": ("loop.gif",),
    "scan.tif": ("scan.tif",),
    "frames": ("frames",),
    "thresholds.yaml": ("thresholds.yaml", "runs/pets/report/thresholds.yaml"),
    "resnet18.pth": ("resnet18.pth",),
    "crops.tar.xz": ("cifar10_jpeg.tar.xz",),
    "instances.json": ("annotations.json",),
    "detections.json": ("detections.json",),
    "masks.json": ("instances_val2017.json",),
    "segm.json": ("segm.json",),
    "detections": ("detections",),
    "devkit": ("devkit",),
    "ilsvrc": ("ILSVRC/devkit",),
    "det.txt": ("det.txt",),
    "loc.txt": ("loc.txt",),
    "devkit/VOC2007/JPEGImages": ("photos",),
}
BEHIND = {name: made for made, names in NAMES.items() for name in names}

# A page says FILE or DIR: after an option, this is given.
PLACEHOLDERS = {
    ("--config", "FILE"): "mine.yaml",
    ("--weights", "FILE"): "runs/pets/best.pt",
    ("--annotations", "FILE"): "annotations.json",
    ("--detections", "FILE"): "detections.json",
    ("--detections", "DIR"): "detections",
    ("--devkit", "DIR"): "devkit",
    ("--report", "FILE"): "report.json",
}
# Other words of the pages, and what is given for them: forms of a value, and lengths that take minutes.
WORDS = {
    "SRC": "resnet18.pth",
    "DST": "converted.pt",
    "train.steps=550": "train.steps=2",
    "train.warmup_steps=50": "train.warmup_steps=1",
}
# What makes a command small that no config makes small.
MORE = {"datasets/make_digits.py": ("--train", "3", "--val", "1", "--test", "1", "--crops", "200")}
FEW_STEPS = {"steps": 2, "lr_drops": [], "warmup_steps": 0, "eval_every": 0, "log_every": 1}


def write_sandbox(folder: Path) -> None:
    """Data, configs, one run of each kind, and files of detections, by the names of NAMES."""
    write_plugin(folder)
    for split in ("train", "val", "test"):
        write_devkit(folder / "devkit", split=split)
        write_split(folder / "crops", split)
    write_coco(folder)
    pack(folder / "crops", folder / "crops.tar.xz", "w:xz")
    cv2.imwrite(str(folder / "photo.jpg"), np.random.default_rng(1).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    write_video(folder / "film.mp4", num_frames=2)
    write_frames(folder / "loop.gif")
    write_frames(folder / "scan.tif")
    for name in "ab":
        write_picture(folder / f"frames/{name}.png")
    write_yaml(folder / "thresholds.yaml", dict.fromkeys(CLASSES, 0.4))
    save_checkpoint(build_backbone("resnet18", num_classes=1000).state_dict(), folder / "resnet18.pth")
    write_kit(folder / "ilsvrc")
    write_masks(folder)
    (folder / "det.txt").write_text("1 1 0.9 0 0 9 9\n")
    (folder / "loc.txt").write_text("1 0 0 9 9\n\n")
    write_localisation(folder)
    write_configs(folder)
    run_all(folder)


def write_masks(folder: Path) -> None:
    """An annotation and a result file of one mask."""
    mask = {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]}
    image, category = {"id": 1, "height": 9, "width": 9}, {"id": 1, "name": "cat"}
    content = {"images": [image], "annotations": [mask | {"id": 1}], "categories": [category]}
    (folder / "masks.json").write_text(json.dumps(content))
    (folder / "segm.json").write_text(json.dumps([mask | {"score": 0.9}]))


def write_plugin(folder: Path) -> None:
    """The example's module, and what its installation would leave: a distribution with an entry point."""
    shutil.copy(ROOT / "docs/examples/plugin/tinynet.py", folder)
    info = folder / "tinynet-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinynet\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[resdet.backbones]\ntinynet = tinynet:build\n")


def write_configs(folder: Path) -> None:
    """configs/NAME.yaml for each of the repository's, and the pages' mine.yaml."""
    (folder / "configs").mkdir()
    for file in (ROOT / "configs").glob("*.yaml"):
        is_classifier = file.stem.endswith("_pretrain") or file.stem.startswith(("imagenet", "cifar"))
        is_localiser = file.stem.startswith("ilsvrc_loc")
        values = classifier_values(folder, file) if is_classifier else detector_values(folder)
        values = localiser_values(folder) if is_localiser else values
        write_yaml(folder / "configs" / file.name, {"base": str(file), **values})
    page = next(block.text for block in blocks(ROOT / "README.md") if block.text.startswith("# mine.yaml"))
    (folder / "page.yaml").write_text(page)
    write_yaml(folder / "mine.yaml", {"base": "page.yaml", **detector_values(folder)})


def write_yaml(file: Path, values: Mapping[str, object]) -> None:
    """The values as a config."""
    file.write_text(yaml.safe_dump(dict(values)))


def detector_values(folder: Path) -> dict[str, Any]:
    """What makes a detection experiment small: four small images, two steps of one image."""
    sources = {
        split: [{"format": "voc", "root": str(folder / "devkit"), "year": "2007", "split": split}]
        for split in ("train", "val", "test")
    }
    data = {"classes": list(CLASSES), **sources, "shorter_sides": [64], "longer_side": 100, "workers": 0}
    rpn = {
        "channels": 16,
        "anchor_sizes": [16, 32],
        "anchor_ratios": [0.5, 1.0, 2.0],
        "min_size": 2,
        "sample_size": 16,
        "post_nms_train": 20,
        "post_nms_test": 10,
    }
    return {
        "model": {"backbone": "tinynet"},
        "rpn": rpn,
        "roi": {"sample_size": 8, "pool_size": 4},
        "data": data,
        "train": {"batch_size": 1, "images_per_device": 1, "precision": "fp32", "validation_losses": 1, **FEW_STEPS},
        "test": {"shorter_side": 64, "longer_side": 100, "score_threshold": 0.0},
    }


def localiser_values(folder: Path) -> dict[str, Any]:
    """What makes a localisation experiment small: a step of two images or regions in each stage."""
    solver = {"batch_size": 2, "images_per_device": 2, "precision": "fp32", **FEW_STEPS, "steps": 1}
    return {
        "model": {"backbone": "tinynet"},
        "data": {"root": str(folder / "ILSVRC"), "image_size": 64, "workers": 0},
        "rpn_train": solver,
        "rcnn_train": solver,
        "rcnn": {"num_proposals": 2, "padding": 4},
        "test": {"scales": [64], "longer_side": 100},
    }


def write_localisation(folder: Path) -> None:
    """Two images of the classifier's classes for each split, in ImageNet's layout."""
    root = folder / "ILSVRC"
    kit = root / "devkit/data"
    kit.mkdir(parents=True)
    (kit / "map_clsloc.txt").write_text("berry 1 berry\napple 2 apple\n")
    (kit / "ILSVRC2015_clsloc_validation_blacklist.txt").write_text("")
    for split, name in (("train", "train_loc"), ("val", "val")):
        examples = [("ILSVRC2012_val_00000001", "apple"), ("ILSVRC2012_val_00000002", "berry")]
        for image_id, wnid in examples:
            write_xml(root, split, image_id, [(wnid, (5, 5, 30, 30))])
            picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
            (root / "Data/CLS-LOC" / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "Data/CLS-LOC" / split / f"{image_id}.JPEG"), picture)
        write_list(root, name, [image_id for image_id, _ in examples])


def classifier_values(folder: Path, file: Path) -> dict[str, Any]:
    """What makes a classification experiment small: two steps of four small images. CIFAR's own nets are small."""
    values = {
        "data": {"root": str(folder / "crops"), "image_size": 32, "workers": 0},
        "train": {"batch_size": 4, "images_per_device": 4, "precision": "fp32", **FEW_STEPS, "eval_every": 1},
        "bn_images": 4,
    }
    is_small = "backbone: cifar_" in file.read_text() or file.stem == "cifar10_eighth"
    return values if is_small else {"model": {"backbone": "tinynet"}, **values}


def run_all(folder: Path) -> None:
    """A run of each kind of network, and the detections of one of them in both formats."""
    train = f"train --config {folder}/mine.yaml --output-dir {folder}"
    pretrain = f"pretrain --config {folder}/configs"
    model = f"--weights {folder}/detector/best.pt --write-detections {folder}"
    coco = {"format": "coco", "root": str(folder), "annotations": "instances.json", "images": "images"}
    commands = (
        f"{train}/detector",
        f"{train}/context roi.context=true",
        f"{pretrain}/imagenet_r50.yaml --output-dir {folder}/classifier",
        f"{pretrain}/cifar10.yaml --output-dir {folder}/cifar",
        f"train-loc --config {folder}/configs/ilsvrc_loc_r50.yaml --output-dir {folder}/localiser",
        f"eval-voc {model}/detections",
        f"eval-coco {model}/detections.json {shlex.quote(f'data.test={json.dumps([coco])}')}",
    )
    for command in commands:
        assert main(shlex.split(command)) == 0, command


def given(command: CommandLine) -> list[str]:
    """The arguments of a documented command, with names of the sandbox for the page's FILE, DIR and the like."""
    arguments, option = [], ""
    for word in command.arguments:
        option = word if word.startswith("--") else option
        arguments.append(PLACEHOLDERS.get((option, word), WORDS.get(word, filled(word))))
    return [*arguments, *MORE.get(command.name, ())]


def filled(word: str) -> str:
    """The first of the runs that a page means by NET or S: `runs/NET`, `runs/bccd/sS`, `train.seed=1S`."""
    return re.sub(r"(?<=[sc=1])S(?=/|$)", "0", word.replace("NET", "plain20"))


def needed(name: str, arguments: list[str]) -> Iterator[str]:
    """The files and folders that a command needs, by their names on the page."""
    for option, argument in zip(["", *arguments], arguments, strict=False):
        is_output = option == "--output-dir" or argument.startswith("output_dir=")
        yield from (word for word in (argument, argument.partition("=")[2]) if word in BEHIND and not is_output)
    if name in ("eval-voc", "eval-coco", "demo") and not {"--weights", "--detections"} & set(arguments):
        yield "runs/pets/best.pt" if "--config" in arguments else "runs/quickstart/detector/best.pt"
    if arguments[:2] == ["loc", "--config"] and "--weights" not in arguments:
        yield "runs/ilsvrc_loc_r101"
    if arguments[:2] == ["det", "--config"] and "--weights" not in arguments:
        yield "runs/ilsvrc_det_r101/best.pt"


def offer(sandbox: Path, folder: Path, names: Iterator[str]) -> None:
    """Put these, and all configs, into the folder of a command."""
    for config in ("configs", "mine.yaml", "page.yaml"):
        (folder / config).symlink_to(sandbox / config)
    for name in names:
        link = folder / name.replace("*", "1")
        link.parent.mkdir(parents=True, exist_ok=True)
        made = sandbox / BEHIND[name]
        if made.is_dir():  # folders of their own: the same run under two names would be one run
            shutil.copytree(made, link, copy_function=os.link)
        else:
            link.symlink_to(made)
