"""Imports point one way (docs/conventions.md): each layer may import itself and the layers named for it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BASE = {"errors", "structures", "config", "config_files", "class_names", "resize"}
MIDDLE = BASE | {"modeling", "data"}
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    "visualize": BASE,
    "modeling": BASE,
    "data": BASE,
    "engine": MIDDLE,
    "evaluation": MIDDLE,
    "inference": MIDDLE | {"engine"},
    "pretraining": MIDDLE | {"engine"},
    "benchmarks": MIDDLE | {"engine", "evaluation", "inference", "pretraining"},
    "cli": MIDDLE | {"engine", "evaluation", "inference", "pretraining", "benchmarks", "visualize"},
    "__init__": BASE | {"inference"},
}


def imported_modules(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at the top or inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules.add(node.module or "")
    return modules


@pytest.mark.parametrize("path", sorted((ROOT / "detection").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_detection_layers(path):
    layer = path.relative_to(ROOT / "detection").parts[0].removesuffix(".py")
    for module in imported_modules(path):
        package, _, rest = module.partition(".")
        assert package not in ("tools", "tests", "datasets"), f"{path} imports {module}"
        if package == "detection" and rest:
            target = rest.split(".")[0]
            assert target == layer or target in ALLOWED[layer], f"{layer} must not import {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "backbones").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_backbones_stand_alone(path):
    for module in imported_modules(path):
        assert module.partition(".")[0] not in ("detection", "tools"), f"{path} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.name)
def test_tools_are_doors(path):
    assert len(path.read_text().splitlines()) <= 12
    assert {module for module in imported_modules(path) if module} <= {"detection.cli.main"}
