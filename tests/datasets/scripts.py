"""The scripts of datasets/, which is no package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

DATASETS = Path(__file__).parents[2] / "datasets"


def load_script(name: str) -> ModuleType:
    """datasets/NAME.py, imported under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"datasets_{name}", DATASETS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
