"""One XML file of Pascal VOC, as the benchmark, labelImg and many exports write it: its image, its size, its objects.

VOC counts pixels from 1 and its box includes the last one; ours is continuous and counts from 0, so (xmin, ymin, xmax,
ymax) becomes (xmin - 1, ymin - 1, xmax, ymax). Fractions are kept: VOC 2012 has some.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from xml.etree import ElementTree

from backbones.errors import printable, shorten
from backbones.files import read_regular
from detection.data.faults import Faults
from detection.data.records import Box, parse_number
from detection.errors import DatasetError

MAX_XML_BYTES = 1 << 23  # of one annotation: some 25,000 objects

_DOCUMENTS = {"annotation": "VOC annotation", "annotations": "CVAT annotation"}
_ENCODING = re.compile(rb"""<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.-]{1,20})["']""")
_EAST_ASIAN = frozenset(
    {"gbk", "gb2312", "gb18030", "big5", "big5hkscs", "shift_jis", "cp932", "euc_jp", "euc_kr", "cp949", "iso_2022_jp"}
)


def parse_xml(path: Path, tag: str = "annotation", max_bytes: int = MAX_XML_BYTES) -> ElementTree.Element:
    """The root of a file, which must have that tag. Raises DatasetError: missing, malformed, too large, another document."""
    root = read_xml(path, max_bytes)
    if root.tag != tag:
        raise DatasetError(f"{path} is no {_DOCUMENTS[tag]}: its root is <{printable(root.tag[:80])}>, not <{tag}>")
    return root


def read_xml(path: Path, max_bytes: int = MAX_XML_BYTES) -> ElementTree.Element:
    """The root of a file. Raises DatasetError: missing, malformed (with the line), too large, entities of its own."""
    try:
        content = read_regular(path, max_bytes)
        declares_entities = any("<!ENTITY".encode(encoding) in content for encoding in ("ascii", "utf-16-le", "utf-16-be"))
        root = ElementTree.Element("") if declares_entities else ElementTree.fromstring(_decoded(content))
    except ElementTree.ParseError as error:
        raise DatasetError(f"{path} is not well-formed XML: {printable(str(error))}") from None
    except OSError as error:
        raise DatasetError(f"cannot read annotation {path}: {error.strerror}") from None
    except (ValueError, LookupError) as error:  # an encoding that is unknown or wrong
        raise DatasetError(f"cannot read annotation {path}: {printable(str(error))}") from None
    if declares_entities:
        raise DatasetError(f"{path} declares entities of its own, which can make a small file endless: leave them out")
    return root


def _decoded(content: bytes) -> bytes | str:
    """The content as it is, or as text: in an encoding of several bytes, which the parser does not know, or in UTF-16.

    Programs write UTF-16 under a declaration that says UTF-8; its first bytes tell it all the same.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    declared = _ENCODING.match(content)
    if declared is None or declared[1].decode("ascii").lower().replace("-", "_") not in _EAST_ASIAN:
        return content
    return content.decode(declared[1].decode("ascii"))


def read_size(tree: ElementTree.Element, path: Path, faults: Faults) -> tuple[int, int] | None:
    """(height, width) of the <size> tag, or None where it holds none (some tools write 0), which may be a fault."""
    height, width = (parse_number(tree.findtext(f"size/{tag}")) for tag in ("height", "width"))
    if height and width and _is_side(height) and _is_side(width):
        return int(height), int(width)
    if tree.find("size") is not None and not all(number == 0 or _is_side(number) for number in (height, width)):
        faults.note(str(path), "<size> without two numbers", "taken from the image")
    return None


def _is_side(number: float | None) -> bool:
    return number is not None and 1 <= number < 2**31 and number == int(number)


def read_name(element: ElementTree.Element, where: str, faults: Faults) -> str | None:
    """The class of an <object>, or None where it has none, which is noted in `faults`."""
    name = (element.findtext("name") or "").strip()
    if not name:
        faults.note(where, "object without <name>", "dropped")
        return None
    return name


def read_box(element: ElementTree.Element, where: str, faults: Faults, first_pixel: int = 1) -> Box | None:
    """The box of an <object>, which may reach out of the image; None where it is no box, which is noted in `faults`.

    `first_pixel` is what the file calls the first one of a row: 1 in VOC, 0 in ImageNet. A box includes its last pixel in both.
    """
    if len(element.findall("name")) > 1 or len(element.findall("bndbox")) > 1:
        faults.note(where, "several <name> or <bndbox>", "the first is taken")
    texts = {tag: element.findtext(f"bndbox/{tag}") for tag in ("xmin", "ymin", "xmax", "ymax")}
    numbers = []
    for tag, text in texts.items():
        number = parse_number(text)
        if number is None:
            fault = "object without a whole <bndbox>" if text is None else "text for a number"
            faults.note(f"{where}: no <{tag}>" if text is None else f"{where}: <{tag}> is {shorten(text)}", fault, "dropped")
            return None
        numbers.append(number)
    xmin, ymin, xmax, ymax = numbers
    box = (xmin - first_pixel, ymin - first_pixel, xmax - first_pixel + 1, ymax - first_pixel + 1)
    where = describe_box(where, box, first_pixel)
    extent = min(xmax - xmin, ymax - ymin)
    if extent <= 0:
        # 0 is one pixel to the devkit, but nobody draws such a box on purpose: it is a click that slipped.
        faults.note(where, "inverted box" if extent < 0 else "box without area", "dropped", box)
        return None
    return box


def describe_box(where: str, box: Box, first_pixel: int = 1) -> str:
    """Where a box is, for messages, with its numbers as the file has them."""
    xmin, ymin, xmax, ymax = box[0] + first_pixel, box[1] + first_pixel, box[2] + first_pixel - 1, box[3] + first_pixel - 1
    return f"{where}, box {xmin:g} {ymin:g} {xmax:g} {ymax:g}"


def read_difficult(element: ElementTree.Element, where: str, faults: Faults) -> bool:
    """Whether an <object> is difficult; an empty tag says no more than a missing one."""
    difficult = (element.findtext("difficult") or "").strip() or "0"
    if parse_number(difficult) is None:
        faults.note(f"{where}: <difficult> is {shorten(difficult)}", "text for a number", "taken as 0")
    return bool(parse_number(difficult))
