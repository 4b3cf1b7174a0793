"""The files of plots: written whole in the format of the suffix, or not at all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from detection.analysis.plots import PICTURE_SUFFIXES, new_figure, save_figure

BEGINNINGS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".jpg": b"\xff\xd8"}


@pytest.mark.parametrize("suffix", [*PICTURE_SUFFIXES, ".PNG"])
def test_the_suffix_is_the_format(suffix: str, tmp_path: Path) -> None:
    figure = new_figure(1, 1)
    save_figure(figure, tmp_path / "new" / f"plot{suffix}")
    content = (tmp_path / "new" / f"plot{suffix}").read_bytes()
    assert content.startswith(BEGINNINGS[suffix.lower()])


def test_a_full_disk_leaves_the_old_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plot.png").write_bytes(b"old")
    figure = new_figure(1, 1)

    def full(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(OSError, match=r"No space left on device: .*plot\.png"):
        save_figure(figure, tmp_path / "plot.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("plot.png", b"old")]
