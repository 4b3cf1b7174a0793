"""Published weights by name: downloaded once, verified, converted into a checkpoint of ours, kept in the user's cache.

The cache is $RESDET_CACHE, or resdet/ in $XDG_CACHE_HOME or ~/.cache. In it lie downloads/FILE, as it was published, and
v1/NAME-HASH.pt, the checkpoint, with the start of its own SHA-256 in its name.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backbones.errors import CheckpointError, nearest, shorten
from backbones.files import is_file
from backbones.weights.conversion import convert_backbone
from backbones.weights.download import (
    Digest,
    DownloadError,
    ReportProgress,
    UnreachableError,
    fetch,
    hash_of,
    locked,
    mismatch,
    report_nothing,
)
from backbones.weights.files import load_checkpoint, save_checkpoint
from backbones.weights.format import Checkpoint, CheckpointMetadata, Kind
from backbones.weights.request import Limits

Converter = Callable[[Path], Mapping[str, Any]]

LAYOUT = "v1"  # to be raised when the same file is converted into something else
_SUFFIXES = {".pt", ".pth", ".pkl", ".safetensors", ".ckpt", ".bin"}
_PYTORCH = "https://download.pytorch.org/models"
_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2"

_MAX_BYTES = 2**31  # of a file; the largest is a quarter of it

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights on the publisher's server."""

    name: str
    url: str
    kind: Kind

    @property
    def digest(self) -> Digest | None:
        """The hash whose first digits the publisher put into the file's name; None where there is none.

        PyTorch's have eight digits of the SHA-256, detectron2's models six of the MD5 (its MODEL_ZOO.md says so). That finds
        damage, not malice; https and the reading of weights without running code see to that.
        """
        if found := re.search(r"-([0-9a-f]{8})\.pth$", self.url):
            return Digest("sha256", found[1])
        if found := re.search(r"_([0-9a-f]{6})\.pkl$", self.url):
            return Digest("md5", found[1])
        return None

    @property
    def file(self) -> Path:
        """Where the cache has it, as published."""
        return cache_folder() / "downloads" / self.url.rpartition("/")[2]


# torchvision's names of the files; _v2 are its IMAGENET1K_V2, the others IMAGENET1K_V1. vgg16_features is left out: it has no
# classifier, and expects another mean. The authors' models have no hash in their names, and none is published: what
# vouches for them is their length and that every tensor finds its place.
_CLASSIFIERS = {
    "torchvision/resnet18": f"{_PYTORCH}/resnet18-f37072fd.pth",
    "torchvision/resnet34": f"{_PYTORCH}/resnet34-b627a593.pth",
    "torchvision/resnet50": f"{_PYTORCH}/resnet50-0676ba61.pth",
    "torchvision/resnet50_v2": f"{_PYTORCH}/resnet50-11ad3fa6.pth",
    "torchvision/resnet101": f"{_PYTORCH}/resnet101-63fe2227.pth",
    "torchvision/resnet101_v2": f"{_PYTORCH}/resnet101-cd907fc2.pth",
    "torchvision/resnet152": f"{_PYTORCH}/resnet152-394f9c45.pth",
    "torchvision/resnet152_v2": f"{_PYTORCH}/resnet152-f82ba261.pth",
    "torchvision/vgg16": f"{_PYTORCH}/vgg16-397923af.pth",
    "msra/R-50": f"{_DETECTRON2}/ImageNetPretrained/MSRA/R-50.pkl",
    "msra/R-101": f"{_DETECTRON2}/ImageNetPretrained/MSRA/R-101.pkl",
}
# torchvision's names of its detectors; all are its COCO_V1.
_TORCHVISION_DETECTORS = {
    "torchvision/fasterrcnn_resnet50_fpn": f"{_PYTORCH}/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
    "torchvision/fasterrcnn_resnet50_fpn_v2": f"{_PYTORCH}/fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
    "torchvision/maskrcnn_resnet50_fpn": f"{_PYTORCH}/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
    "torchvision/maskrcnn_resnet50_fpn_v2": f"{_PYTORCH}/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
}
# detectron2's own names of its models, and their files below the name.
_DETECTORS = {
    "COCO-Detection/faster_rcnn_R_50_C4_1x": "137257644/model_final_721ade.pkl",
    "COCO-Detection/faster_rcnn_R_50_C4_3x": "137849393/model_final_f97cb7.pkl",
    "COCO-Detection/faster_rcnn_R_101_C4_3x": "138204752/model_final_298dad.pkl",
    "COCO-Detection/faster_rcnn_R_50_FPN_1x": "137257794/model_final_b275ba.pkl",
    "COCO-Detection/faster_rcnn_R_50_FPN_3x": "137849458/model_final_280758.pkl",
    "COCO-Detection/faster_rcnn_R_101_FPN_3x": "137851257/model_final_f6e8b1.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x": "137259246/model_final_9243eb.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_3x": "137849525/model_final_4ce675.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_C4_3x": "138363239/model_final_a2914c.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": "137260431/model_final_a54504.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x": "137849600/model_final_f10217.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x": "138205316/model_final_a3ec72.pkl",
    "PascalVOC-Detection/faster_rcnn_R_50_C4": "142202221/model_final_b1acc2.pkl",
}
ZOO: dict[str, PublishedWeights] = {
    **{name: PublishedWeights(name, url, "classifier") for name, url in _CLASSIFIERS.items()},
    **{name: PublishedWeights(name, url, "detector") for name, url in _TORCHVISION_DETECTORS.items()},
    **{
        f"detectron2/{name}": PublishedWeights(f"detectron2/{name}", f"{_DETECTRON2}/{name}/{file}", "detector")
        for name, file in _DETECTORS.items()
    },
}


def list_weights(kind: Kind | None = None) -> list[str]:
    """The names of published weights: of classifiers, of detectors, or of both."""
    return [name for name, entry in ZOO.items() if kind in (None, entry.kind)]


def classifier_file(weights: str | Path, report: ReportProgress = report_nothing) -> Path:
    """The file of a backbone's weights: `weights` itself, or the checkpoint of the published weights of that name.

    `report(done, total)` is called with numbers of bytes while it is downloaded. Raises CheckpointError: an unknown name, a
    detector's, no connection, another file than was published, no space.
    """
    entry = find_published(weights, "classifier")
    return Path(weights) if entry is None else converted_file(entry, classifier_checkpoint, report)


def find_published(weights: str | Path, kind: Kind | None = None) -> PublishedWeights | None:
    """The published weights that `weights` names; None if it is a file. With `kind` they must be of that kind.

    Raises CheckpointError for a name of the other kind, and for what is no file and similar to a name.
    """
    name = Path(weights).as_posix()
    if is_file(weights) or Path(weights).suffix in _SUFFIXES:
        return None
    if name not in ZOO:
        _refuse_unknown(name)
        return None
    entry = ZOO[name]
    if kind not in (None, entry.kind):
        raise CheckpointError(
            f"{name} is a {entry.kind}'s; a {kind}'s is needed here: one of {', '.join(list_weights(kind))}, or a file"
        )
    return entry


def _refuse_unknown(name: str) -> None:
    same_ending = next((known for known in ZOO if known.endswith(f"/{name}")), None)
    near = same_ending or nearest(name, ZOO, cutoff=0.8)
    family = [known for known in ZOO if known.partition("/")[0] == name.partition("/")[0]]
    if near is None and not family:
        return
    hint = f"did you mean '{near}'?" if near else f"known are {', '.join(family)}"
    raise CheckpointError(f"there is no file {shorten(name)}, nor published weights of that name; {hint}")


def cache_folder() -> Path:
    """Where published weights are kept. Raises CheckpointError where the user's home is not known."""
    try:
        if chosen := os.environ.get("RESDET_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "resdet"
    except RuntimeError as error:
        raise CheckpointError(f"no folder for downloads: {error}; set RESDET_CACHE to one") from None


def published_file(entry: PublishedWeights, report: ReportProgress = report_nothing) -> Path:
    """The file as it was published, downloaded unless it is there already, and verified. Raises CheckpointError."""
    with _as_checkpoint_errors(entry), locked(entry.file):
        read = None if entry.digest else load_checkpoint
        fetch(entry.url, entry.file, entry.digest, report, read=read, limits=_limits())
    return entry.file


def converted_file(entry: PublishedWeights, convert: Converter, report: ReportProgress = report_nothing) -> Path:
    """The checkpoint made of a published file by `convert`, made unless it is there already and whole.

    Of several processes one downloads and converts, the others wait. Raises CheckpointError.
    """
    with _as_checkpoint_errors(entry):
        if found := find_cached(entry):
            return found
        with locked(entry.file):
            if found := find_cached(entry):
                return found
            made = fetch(entry.url, entry.file, entry.digest, report, read=convert, limits=_limits())
            return _store(made, _cached_stem(entry))


def _limits() -> Limits:
    return Limits.from_environment(max_bytes=_MAX_BYTES)


def classifier_checkpoint(source: Path) -> dict[str, Any]:
    """The contents of a checkpoint of ours, made of another project's file of a classifier. Raises CheckpointError."""
    found = convert_backbone(load_checkpoint(source), str(source))
    model = {"backbone": found.name, "stride_in_1x1": found.stride_in_1x1, "stem_pool": found.stem_pool}
    versions = {"torch": str(torch.__version__)}
    # The file does not tell the names of its classes.
    metadata = CheckpointMetadata("classifier", (), found.preprocessing, {"model": model}, versions=versions)
    return Checkpoint(metadata, found.state).contents()


def find_cached(entry: PublishedWeights) -> Path | None:
    """The cached checkpoint made of a published file; None if there is none, or only a damaged one.

    A whole one has the hash that its name says.
    """
    stem = _cached_stem(entry)
    for file in sorted(stem.parent.glob(f"{stem.name}-????????.pt")):
        fault = mismatch(file, Digest("sha256", file.stem.rpartition("-")[2]))
        if fault is None:
            return file
        logger.warning("%s is damaged: it is made again", file)
    return None


def _cached_stem(entry: PublishedWeights) -> Path:
    return cache_folder() / LAYOUT / entry.name


def _store(checkpoint: Mapping[str, Any], stem: Path) -> Path:
    """Write the checkpoint to STEM-HASH.pt, with the start of its own hash; damaged ones are deleted."""
    fresh = stem.with_name(f"{stem.name}.new")
    save_checkpoint(checkpoint, fresh)
    stored = stem.with_name(f"{stem.name}-{hash_of(fresh, 'sha256')[:8]}.pt")
    fresh.replace(stored)
    for file in stem.parent.glob(f"{stem.name}-????????.pt"):
        if file != stored:
            with suppress(OSError):  # a system that does not delete files in use
                file.unlink()
    return stored


@contextmanager
def _as_checkpoint_errors(entry: PublishedWeights) -> Iterator[None]:
    """Inside, errors of downloading and storing become a CheckpointError of one line that says what to do."""
    try:
        yield
    except UnreachableError as error:
        raise CheckpointError(f"{entry.name}: {error}; fetch it on a connected machine and put it at {entry.file}") from None
    except DownloadError as error:
        raise CheckpointError(f"{entry.name}: {error}") from None
    except OSError as error:
        raise CheckpointError(
            f"{entry.name}: cannot use {error.filename or cache_folder()}: {error.strerror or error}; "
            "set RESDET_CACHE to a folder with room that you may write to"
        ) from None
