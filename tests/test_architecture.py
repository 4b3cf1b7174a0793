"""Imports point one way and never in a circle (docs/architecture.md). All imports count: at the top of a file, inside
functions, and those for type checkers."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

from detection.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent

# Rooms of `detection`, the lowest first: each may import itself and those on lines above its own.
LEVELS = (
    {"errors"},
    {"polygons"},
    {"allocator", "config", "device", "files", "fonts", "html", "masks", "matlab", "terminal", "tiles", "out_of_memory"},
    {"structures", "resize", "rows"},
    {"visualize"},
    {"modeling", "data"},
    {"weights", "evaluation"},
    {"engine"},
    {"report"},
    {"inference", "trackers"},
    {"pretraining", "export"},
    {"training", "analysis", "localisation"},
    {"cli"},
)
# Inside `backbones`, likewise; a package's name stands for all of its files.
BACKBONE_LEVELS = (
    {"errors"},
    {"files", "memo", "modes", "constants"},
    {"packed"},
    {"preprocessing", "convolution"},
    {"options", "norm"},
    {"base", "checkpointing"},
    {"blocks", "layers"},
    {"c4", "fpn"},
    {"resnet", "vgg", "cifar", "foreign"},
    {"registry"},
    {"weights", "plugins"},
    {"build"},
    {"__init__"},
)


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Full names of the modules that a file imports; of `from package import module` the module's."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                modules.add(whole if file_of(whole) else node.module or "")
    return frozenset(modules)


def file_of(module: str) -> Path | None:
    """The file of a module of this repository, or None."""
    place = ROOT.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()), None)


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(module: str) -> str:
    """`detection.data.voc` -> "data"; a package itself -> "__init__"."""
    return ([*module.split("."), "__init__"])[1]


def may_import(levels: tuple[set[str], ...], room: str) -> set[str]:
    """The room itself and all below it."""
    level = next((number for number, rooms in enumerate(levels) if room in rooms), None)
    assert level is not None, f"'{room}' has no place among the levels above"
    return {room}.union(*levels[:level])


@pytest.mark.parametrize("path", python_files("detection"), ids=name_of)
def test_rooms_of_detection_import_downwards(path):
    room = path.relative_to(ROOT / "detection").parts[0].removesuffix(".py")
    for module in imports_of(path):
        package = module.partition(".")[0]
        assert package not in ("tools", "tests", "datasets", "docs", "configs"), f"{name_of(path)} imports {module}"
        if package == "detection" and room != "__init__":
            assert room_of(module) in may_import(LEVELS, room), f"{name_of(path)} must not import {module}"


@pytest.mark.parametrize("path", python_files("backbones"), ids=name_of)
def test_backbones_stand_alone_and_import_downwards(path):
    room = path.relative_to(ROOT / "backbones").parts[0].removesuffix(".py")
    for module in imports_of(path):
        package = module.partition(".")[0]
        assert package not in ("detection", "tools", "tests", "datasets"), f"{name_of(path)} imports {module}"
        if package == "backbones":
            assert room_of(module) in may_import(BACKBONE_LEVELS, room), f"{name_of(path)} must not import {module}"


def test_no_file_imports_itself_in_a_circle():
    files = [*python_files("backbones"), *python_files("detection")]
    arrows = {path: {file for module in imports_of(path) if (file := file_of(module)) and file != path} for path in files}
    left = set(files)
    # Take away files that import nothing that is left, again and again; what remains are circles and what leads to them.
    while leaves := {path for path in left if not arrows[path] & left}:
        left -= leaves
    # And from the other side: what nobody left imports only leads to a circle.
    while roots := {path for path in left if not any(path in arrows[other] for other in left)}:
        left -= roots
    assert not left, f"circles among {', '.join(sorted(map(name_of, left)))}"


def test_the_search_for_circles_finds_one():
    assert may_import(({"a"}, {"b", "c"}, {"d"}), "b") == {"a", "b"}
    assert file_of("detection.cli") == ROOT / "detection/cli/__init__.py"
    assert file_of("detection.errors") == ROOT / "detection/errors.py"
    assert file_of("torch") is None


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.name)
def test_tools_are_doors(path):
    assert len(path.read_text().splitlines()) <= 12
    ours = {module for module in imports_of(path) if module.partition(".")[0] not in sys.stdlib_module_names}
    rooms = {"benchmark.py": "tools.benchmarks.command", "gpu.py": "tools.benchmarks.gpu_plan"}
    assert ours <= {rooms.get(path.name, "detection.cli.main")}


@pytest.mark.parametrize(
    "path", sorted(set((ROOT / "tools").glob("*.py")) - {ROOT / "tools/__init__.py"}), ids=lambda path: path.name
)
def test_tools_can_be_run_by_their_names(path):
    assert path.read_text().startswith("#!/usr/bin/env python3\n") and path.stat().st_mode & 0o111 == 0o111


def test_every_command_has_a_tool():
    others = {"train": "train_net", "import": "import_dataset"}
    names = {others.get(name, name.replace("-", "_")) for name in COMMANDS}
    assert names <= {path.stem for path in (ROOT / "tools").glob("*.py")}
