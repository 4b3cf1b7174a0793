"""The lines of YOLO's label files: the id of a class, then fractions of the image's width and height.

Five numbers are a box: id, centre x, centre y, width, height. An odd number from seven on is a polygon (nine: the corners of a
turned box): id, x1, y1, x2, y2, ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backbones.errors import first_names, shorten
from detection.data.faults import Faults
from detection.data.formats.shapes import points_box
from detection.data.formats.yolo_data import YoloData
from detection.data.labelled import LabelledObject
from detection.data.records import Box, parse_number
from detection.errors import DatasetError
from detection.files import read_text
from detection.polygons import pack_polygons

MAX_LABEL_BYTES = 1 << 26
MAX_FRACTION = 2.0
"""A box may reach out of its image by some rounding or a careless click; numbers beyond this are no fractions."""


@dataclass
class LineReader:
    """Reads label files, and counts what is told of their lines."""

    names: Mapping[int, str] | None
    data: YoloData
    faults: Faults
    counts: Counter[str] = field(default_factory=Counter)

    def read(self, file: Path) -> Iterator[LabelledObject]:
        """The objects of a file. Raises DatasetError: an id that is of no class, values that are no fractions."""
        unnamed = "" if self.names is not None else " (neither a data.yaml nor a classes.txt names the ids)"
        for number, line in enumerate(read_text(file, MAX_LABEL_BYTES).split("\n"), start=1):
            texts = line.partition("#")[0].replace(",", " ").replace(";", " ").split()
            if texts:
                with self.faults.guard():
                    found = self._read_line(texts, f"{file}, line {number}{unnamed}")
                    if found is not None:
                        yield found

    def _read_line(self, texts: Sequence[str], where: str) -> LabelledObject | None:
        name = self._class_name(texts[0], where)
        numbers = [number for number in map(parse_number, texts[1:]) if number is not None]
        if len(numbers) < len(texts) - 1:
            bad = next(text for text in texts[1:] if parse_number(text) is None)
            self.faults.note(f"{where}: {shorten(bad)}", "text for a number", "dropped")
            return None
        box = self._box(numbers)
        if box is None:
            fault = "line that is neither a box nor a polygon"
            self.faults.note(f"{where}: {len(texts)} numbers", fault, "dropped")
            return None
        if max(map(abs, box)) > MAX_FRACTION:
            raise DatasetError(
                f"{where}: {shorten(' '.join(texts[1:5]))} are no fractions of the image's width and height, but pixels? "
                f"YOLO's numbers are centre x, centre y, width and height, each divided by the image's width or height"
            )
        polygons = pack_polygons([numbers]) if self._is_polygon(len(numbers)) else None
        return LabelledObject(name, box, where, polygons=polygons)

    def _class_name(self, text: str, where: str) -> str:
        number = parse_number(text)
        if number is None or number < 0 or number != int(number):
            raise DatasetError(f"{where}: the first number of a line is the id of a class, 0, 1, ..., found {shorten(text)}")
        if self.names is None:
            return str(int(number))
        if int(number) not in self.names:
            names = first_names(list(self.names.values()))
            raise DatasetError(f"{where}: there is no class {int(number)}: the names of {len(self.names)} classes are {names}")
        return self.names[int(number)]

    def _has_key_points(self, count: int) -> bool:
        return self.data.key_point_fields > 0 and count == 4 + self.data.key_point_fields

    def _is_polygon(self, count: int) -> bool:
        return count >= 6 and count % 2 == 0 and not self._has_key_points(count)

    def _box(self, numbers: Sequence[float]) -> Box | None:
        """The box of the numbers after the id, in fractions; None where they are none."""
        count = len(numbers)
        if count in (4, 5) or self._has_key_points(count):
            self.counts["lines have key points, which are left out"] += count > 5
            self.counts["lines have a sixth number, a score, which is left out"] += count == 5
            x, y, width, height = numbers[:4]
            return x - width / 2, y - height / 2, x + width / 2, y + height / 2
        if self._is_polygon(count):
            self.counts["lines are polygons or turned boxes: their boxes are those around them"] += 1
            return points_box(numbers[0::2], numbers[1::2])
        return None

    def inform(self, root: Path) -> None:
        """Tell of what kinds lines are that are no plain boxes."""
        for message, count in self.counts.items():
            if count:
                self.faults.inform(f"{root}: {count} {message}")


def looks_like_labels(file: Path) -> bool:
    """Whether the first line of a text file is one of YOLO's labels."""
    try:
        text = read_text(file, MAX_LABEL_BYTES)
    except DatasetError:
        return False
    first = next((line for line in text.split("\n") if line.partition("#")[0].strip()), "").replace(",", " ").split()
    return len(first) >= 5 and first[0].isdigit() and all(parse_number(each) is not None for each in first[1:])
