"""Splits by the names that people and programs give them: train, training, train2017, train_images are one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_WORDS = re.compile(r"[A-Za-z]+")
_CONTENTS = r"(?:images?|imgs?|pictures|photos|frames|labels?|annotations?|data|dataset|set)"
_AROUND = re.compile(rf"^{_CONTENTS}[_\- ]+|[_\- ]*{_CONTENTS}$")  # "train_images", "images-train", "trainset"


def canonical_split(name: str) -> str:
    """train, val or test for a split under any of their names; another name as it is, but for white space around it."""
    plain = name.strip().lower().rstrip("0123456789_- ")
    return _NAMES.get(plain) or _NAMES.get(_AROUND.sub("", plain, count=1)) or name.strip()


def split_of(path: str) -> str | None:
    """The split that a path's folders, or its file's name, tell: train for "train2017/a.jpg" and "data/train_labels.csv"."""
    whole = PurePosixPath(path)
    folders = (_NAMES.get(canonical_split(part).lower()) for part in whole.parts[:-1])
    return next((name for name in folders if name is not None), None) or _split_in(_WORDS.findall(whole.stem.lower()))


def in_split(path: str, split: str) -> bool:
    """Whether one of a path's folders is that of a split, which may be called by any name: "fold 3" as well as "train"."""
    folders = PurePosixPath(path).parent
    return split_of(f"{folders}/") == split or any(canonical_split(part) == split for part in folders.parts)


def _split_in(words: Iterable[str]) -> str | None:
    """The one split among words; None for none, and for several."""
    found = {_NAMES[word] for word in words if word in _NAMES}
    return found.pop() if len(found) == 1 else None
