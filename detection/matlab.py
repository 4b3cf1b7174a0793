"""MATLAB's .mat files, of which ImageNet's development kits have some, read in a process of its own.

SciPy's reader crashes on damaged files, and some of them are bombs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from backbones.files import read_regular
from detection.errors import DatasetError

_MAX_BYTES = 1 << 26
_SECONDS = 120
_READ = """
import io, json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
except (ImportError, ValueError, OSError):
    pass
import numpy as np
from scipy.io import loadmat

def plain(value):
    if isinstance(value, np.void):
        return {name: plain(value[name]) for name in value.dtype.names}
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value.reshape(-1)] if value.dtype == object or value.dtype.names else value.tolist()
    return value.item() if isinstance(value, np.generic) else value

names = sys.argv[1:]
content = loadmat(io.BytesIO(sys.stdin.buffer.read()), variable_names=names)
json.dump({name: plain(content[name]) for name in names}, sys.stdout)
"""


def read_matlab(path: Path, names: tuple[str, ...], title: str) -> dict[str, Any]:
    """The variables of these names as plain data: numbers as nested lists of rows, cells and structs as flat lists.

    `title` says in messages what the file should be. Raises DatasetError, also where SciPy is not installed.
    """
    if importlib.util.find_spec("scipy") is None:
        raise DatasetError(f"reading {path} needs the package scipy: pip install scipy")
    try:
        content = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from None
    command, environment = [sys.executable, "-c", _READ, *names], {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=_SECONDS, env=environment, check=True)
        variables: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        raise DatasetError(f"{path} is not {title}") from None
    return variables
