"""Fine-tune a detector on data of your own, see how good it is, and detect with it.

python docs/examples/own_data.py                                  on a small made-up data set, some minutes on a CPU
python docs/examples/own_data.py --data pets --classes cat dog --weights torchvision/resnet50

`--data` is a folder in Pascal VOC's layout with the splits `train` and `val` (docs/custom-data.md). `--weights` is what
training starts from: a classifier's or a detector's, a file or a name. Without it the network learns from random numbers,
which takes far more images and steps to give a useful detector.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from detection import evaluate, train_detector
from detection.data import read_image
from detection.visualize import draw_boxes, save_image

SIDE = 96  # of the made-up images, in pixels
COLOURS = {"brick": (180, 60, 40), "leaf": (50, 160, 60)}


def main(argv: Sequence[str] | None = None) -> int:
    """The whole story: data, config, training, evaluation, pictures."""
    options = build_parser().parse_args(argv)
    data = options.data if options.data else make_data(options.output / "data")

    result = train_detector(write_config(data, options))
    print(f"{result.steps} steps in {result.seconds:.0f} s; checkpoints in {result.output_dir}")

    detector = result.detector
    metrics = evaluate(detector).metrics  # on data.val, as the config has no data.test
    print(f"COCO AP {metrics['AP']:.3f}, VOC mAP@.5 (area) {metrics['voc_area']:.3f}")

    for file in sorted((data / "JPEGImages").glob("*"))[:4]:
        image = read_image(file)
        found = detector.predict([image])[0]
        sure = found[found.scores > 0.5]
        picture = draw_boxes(image, sure.boxes, sure.labels, detector.class_names, sure.scores)
        save_image(options.output / "pictures" / f"{file.stem}.jpg", picture)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="holds Annotations, ImageSets and JPEGImages")
    parser.add_argument("--classes", nargs="+", default=list(COLOURS), metavar="NAME", help="default: %(default)s")
    parser.add_argument("--weights", metavar="FILE", help="what to start from, e.g. torchvision/resnet18")
    parser.add_argument("--steps", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("runs/own_data"), metavar="DIR", help="default: %(default)s")
    return parser


def write_config(data: Path, options: argparse.Namespace) -> Path:
    """The experiment as a YAML file: what differs from the defaults, which are the paper's for large photographs."""

    def split(name: str) -> list[dict[str, str]]:
        return [{"format": "voc", "root": str(data), "split": name}]

    pretrained = {"weights": options.weights, "norm": "frozen_bn", "freeze_stages": 2}
    fresh = {"norm": "bn", "freeze_stages": 0}
    values = {
        "model": {"backbone": "resnet18", **(pretrained if options.weights else fresh)},
        "rpn": {"channels": 64, "anchor_sizes": [24, 48], "sample_size": 64, "min_size": 4, "post_nms_train": 100},
        "roi": {"pooling": "align", "pool_size": 6, "sampling_ratio": 2, "sample_size": 32, "negative_iou": [0.0, 0.5]},
        "data": {
            "classes": options.classes,
            "train": split("train"),
            "val": split("val"),
            "shorter_sides": [SIDE],
            "longer_side": 2 * SIDE,
            "workers": 0,
        },
        "train": {"batch_size": 4, "images_per_device": 4, "steps": options.steps, "learning_rate": 0.01, "clip_norm": 10},
        "test": {"shorter_side": SIDE, "longer_side": 2 * SIDE},
        "output_dir": str(options.output / "run"),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    file: Path = options.output / "config.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return file


def make_data(folder: Path, train: int = 40, val: int = 10) -> Path:
    """Coloured rectangles on grey noise, in Pascal VOC's layout; returns the folder."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        stems = [f"{split}_{number:03d}" for number in range(count)]
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
        for stem in stems:
            make_image(folder, stem, random)
    return folder


def make_image(folder: Path, stem: str, random: np.random.Generator) -> None:
    """One image with an object of each class, and its annotation. VOC counts pixels from 1, both ends included."""
    image = random.integers(90, 160, (SIDE, SIDE, 3)).astype(np.uint8)
    objects = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        width, height = random.integers(16, 44, 2)
        left, top = random.integers(0, SIDE // 2 - 4), number * SIDE // 2 + random.integers(0, 4)
        image[top : top + height, left : left + width] = colour
        box = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + width}</xmax><ymax>{top + height}</ymax>"
        objects.append(f"<object><name>{name}</name><bndbox>{box}</bndbox></object>")
    size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
    (folder / f"Annotations/{stem}.xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>\n", encoding="utf-8")
    save_image(folder / f"JPEGImages/{stem}.jpg", image)


if __name__ == "__main__":
    raise SystemExit(main())
