"""The wheel, installed in a folder of its own and used as the README says, from an empty folder."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("backbones", "configs", "datasets", "detection", "docs", "tests", "tools")
FILES = ("LICENSE", "MANIFEST.in", "README.md", "hubconf.py", "pyproject.toml", "setup.py")
# What makes the README's example small: little pictures, two steps.
SMALL = (
    "model.backbone=resnet18",
    "rpn.channels=16",
    "rpn.anchor_sizes=[16, 32]",
    "roi.pool_size=4",
    "roi.sample_size=8",
    "data.shorter_sides=[64]",
    "data.longer_side=96",
    "data.workers=0",
    "train.steps=2",
    "train.lr_drops=[1]",
    "test.shorter_side=64",
    "test.longer_side=96",
)
ANNOTATION = """<annotation><filename>{name}.jpg</filename><size><width>96</width><height>64</height><depth>3</depth></size>
<object><name>{animal}</name><difficult>0</difficult>
<bndbox><xmin>11</xmin><ymin>11</ymin><xmax>50</xmax><ymax>50</ymax></bndbox></object></annotation>
"""


@pytest.fixture(scope="module")
def wheel(module_path) -> Path:
    """Built from a copy, so that a checkout keeps nothing of it; without a network."""
    source = module_path / "source"
    for name in SOURCES:  # of data sets only the scripts
        ignored = shutil.ignore_patterns("__pycache__", "images") if name != "datasets" else only_scripts
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    command = ["wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(module_path)]
    pip(*command)
    (built,) = module_path.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, module_path) -> Path:
    pip("install", "--no-deps", "--target", str(module_path / "installed"), str(wheel))
    return module_path / "installed"


def only_scripts(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".py")]


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


def python(installed: Path, cwd: Path, *arguments: str) -> str:
    """What Python prints that imports the installed wheel: neither the checkout nor its editable installation."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    environment.pop("RESDET_DATASETS", None)
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def resdet(installed: Path, cwd: Path, *arguments: str) -> str:
    return python(installed, cwd, "-c", "import sys; from detection.cli.main import main; sys.exit(main())", *arguments)


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_the_configs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith("/METADATA")]
        description = str(message_from_bytes(archive.read(metadata)).get_payload())
    assert {name.partition("/")[0] for name in names} == {"backbones", "detection", metadata.partition("/")[0]}
    configs = {f"detection/configs/{path.relative_to(ROOT / 'configs').as_posix()}" for path in ROOT.glob("configs/**/*.yaml")}
    assert {name for name in names if name.startswith("detection/configs/")} == configs
    modules = {
        path.relative_to(ROOT).as_posix() for room in ("backbones", "detection") for path in ROOT.glob(f"{room}/**/*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    templates = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("detection/templates/**/*") if path.is_file()}
    assert {name for name in names if name.startswith("detection/templates/")} == templates
    assert {Path(name).suffix for name in templates} == {".html", ".css", ".js", ""}
    assert {"backbones/py.typed", "detection/py.typed", "detection/templates/uplot/LICENSE"} <= names
    assert len([name for name in names if name.startswith(metadata.partition("/")[0]) and name.endswith("LICENSE")]) == 2
    assert isinstance(description, str) and "# resdet" in description and not re.search(r"\]\((?!https?:)", description)


@pytest.mark.slow
def test_it_works_in_an_empty_folder(installed, tmp_path):
    imported = "import detection; from detection.config import load_config"
    shown = python(
        installed, tmp_path, "-c", f"{imported}; print(detection.__file__, load_config('resdet:voc_r101').model.backbone)"
    )
    file, backbone = shown.split()
    assert Path(file).is_relative_to(installed) and backbone == "resnet101"
    version = next(installed.glob("resdet-*.dist-info")).name.removeprefix("resdet-").removesuffix(".dist-info")
    assert resdet(installed, tmp_path, "--version") == f"resdet {version}\n"
    assert "--config" in resdet(installed, tmp_path, "train", "--help")
    assert "resdet:quickstart" in resdet(installed, tmp_path, "quickstart", "--help")


@pytest.mark.slow
def test_own_data_as_the_readme_says(installed, tmp_path):
    write_pets(tmp_path / "pets")
    example = re.search(r"```yaml\n(# mine\.yaml\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example and "/data/pets" in example[1]
    (tmp_path / "mine.yaml").write_text(example[1].replace("/data/pets", str(tmp_path / "pets")))
    assert "train" in resdet(installed, tmp_path, "check-dataset", "--config", "mine.yaml")
    resdet(installed, tmp_path, "train", "--config", "mine.yaml", *SMALL)
    assert (tmp_path / "runs/pets/last.pt").exists()


@pytest.mark.slow
def test_a_report_is_written(installed, tmp_path):
    write_pets(tmp_path / "pets")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
    truth = {
        "images": [{"id": 1, "file_name": "val_cat.jpg", "width": 96, "height": 64}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    found = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.9}]
    (tmp_path / "found.json").write_text(json.dumps(found))
    ground_truth = ("--annotations", "truth.json", "--images", "pets/JPEGImages")
    resdet(installed, tmp_path, "report", "found.json", *ground_truth, "--output", "report")
    page = (tmp_path / "report/index.html").read_text()
    licence = (ROOT / "detection/templates/uplot/LICENSE").read_text()
    assert licence in page and "var uPlot" in page and list((tmp_path / "report/pictures").glob("*.webp"))


def write_pets(folder: Path) -> None:
    """A VOC folder of four pictures."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        names = [f"{split}_cat", f"{split}_dog"]
        (folder / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))
        for name in names:
            cv2.imwrite(str(folder / f"JPEGImages/{name}.jpg"), noise.integers(0, 256, (64, 96, 3)).astype(np.uint8))
            (folder / f"Annotations/{name}.xml").write_text(ANNOTATION.format(name=name, animal=name.partition("_")[2]))


def test_a_package_index_shows_no_relative_picture_or_link():
    spec = importlib.util.spec_from_file_location("resdet_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (
        "# Title\n\n![digits](docs/a.jpg)\n\n*A caption.*\n\nSee [the page](docs/page.md#part), [top](#title) and "
        "[torch](https://pytorch.org).\n\n![logo](https://x.org/a.png)\n"
    )
    assert module.long_description(readme) == (
        "# Title\n\nSee the page, top and [torch](https://pytorch.org).\n\n![logo](https://x.org/a.png)\n"
    )
