"""Pictures, and what stands in their place."""

from __future__ import annotations

import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.fuzz.mutations.case import VOC_COMMANDS, Case, words
from tests.fuzz.values import break_bytes


def image_file(random_: random.Random, folder: Path) -> Case:
    """An image with broken bytes or metadata, one that promises too much, or something that is no file."""
    path = folder / "VOC2007/JPEGImages/000001.jpg"
    kind = random_.choice(("bytes", "bytes", "exif", "huge", "pipe", "device", "folder", "text", "loop"))
    content = path.read_bytes()
    path.unlink()
    if kind == "bytes":
        path.write_bytes(break_bytes(content, random_))
    elif kind == "exif":
        path.write_bytes(_with_exif(content, random_))
    elif kind == "huge":
        path.write_bytes(_huge_png(random_.choice(((20_000, 20_000), (2**31 - 1, 2), (60_000, 60_000)))))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("not an image")
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path.name}[kind])
    demo = "demo VOC2007/JPEGImages photo.jpg --weights run/last.pt --output drawn"
    return Case(f"image: {kind}", words(*VOC_COMMANDS, demo), is_data=True)


def class_folders(random_: random.Random, folder: Path) -> Case:
    """Class folders with something that is no image among the images."""
    path = folder / "crops" / random_.choice(("train", "val")) / "apple" / "00.png"
    content = path.read_bytes()
    path.unlink()
    kind = random_.choice(("bytes", "pipe", "device", "folder", "huge", "gone"))
    if kind == "bytes":
        path.write_bytes(break_bytes(content, random_))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        path.write_bytes(_huge_png((60_000, 60_000)))
    evaluate = "eval-classifier --config classifier.yaml --weights classifier/last.pt"
    return Case(f"class folder: {kind}", words("pretrain --config classifier.yaml --output-dir new train.steps=1", evaluate))


def demo_inputs(random_: random.Random, folder: Path) -> Case:
    """Pictures with odd names and sizes beside a good one."""
    name = random_.choice(
        ("a\nb.jpg", "[bold].jpg", "%s.jpg", "é.jpg", "-x.jpg", "x" * 250 + ".jpg", "\udcff.jpg", "photo.JPG", "a b.jpg")
    )
    size = random_.choice(((8, 8), (1, 1), (1, 70_000), (70_000, 1), (64, 48)))
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(folder / "odd.png")
    (folder / "odd").mkdir()
    os.rename(folder / "odd.png", os.fsencode(folder / "odd") + b"/" + os.fsencode(name))  # noqa: PTH104
    return Case(f"demo of {name[:20]!r} {size}", words("demo odd photo.jpg --weights run/last.pt --output drawn"))


def _with_exif(content: bytes, random_: random.Random) -> bytes:
    tag = random_.choice((3, 2, 12, 5)).to_bytes(2, "big")  # short, text, double, rational
    value = random_.randbytes(4)
    entry = b"\x01\x12" + tag + random_.choice((1, 1, 4, 2**31)).to_bytes(4, "big") + value
    exif = (
        b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01"
        + entry
        + random_.choice((b"\x00\x00\x00\x00", b"", random_.randbytes(8)))
    )
    return content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]


def _huge_png(size: tuple[int, int]) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\x00" * 1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
