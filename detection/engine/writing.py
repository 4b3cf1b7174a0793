"""Files of a run that cannot be written: one line that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detection.errors import TrainingError

_FULL, _IN_THE_WAY = "free some space", "move away what is in its place"
_FIXES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ELOOP: _IN_THE_WAY,
    errno.EINVAL: _IN_THE_WAY,
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close other programs, as too many files are open,",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context for writing `path`: a full disk or a forbidden folder raises TrainingError, which says what to do."""
    try:
        yield
    except OSError as error:
        fixes = [_FIXES[error.errno]] if error.errno in _FIXES else []
        fix = " or ".join([*fixes, "choose another output folder (--output-dir)"])
        raise TrainingError(f"cannot write {path}: {error.strerror or error}; {fix}") from None
