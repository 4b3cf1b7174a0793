"""Python snippets of the pages run, one after the other on each page, in a folder with the files that they name."""

import ast
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from backbones import build_backbone, registry, save_checkpoint
from detection import load_detector
from detection.data import load_dataset
from detection.inference.dataset import predict_dataset
from tests.cli.trained import write_checkpoint, write_trained
from tests.docs.markdown import PAGES, ROOT, Block, blocks, name_of

PYTHON = {page: [block for block in blocks(page) if block.language == "python"] for page in PAGES}
YAML = [block for page in PAGES for block in blocks(page) if block.language == "yaml"]
WITH_PYTHON = [page for page, found in PYTHON.items() if found]


@pytest.fixture(scope="module")
def prepared(module_path) -> Path:
    """A detector's checkpoint under the names that pages use, configs, a photo."""
    trained = write_trained(module_path / "trained")
    folder = module_path / "folder"
    for name in ("a.pt", "b.pt", "best.pt", "runs/pets/best.pt", "runs/quickstart/detector/best.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained / "best.pt", folder / name)
    write_checkpoint(folder / "masks.pt", trained / "config.yaml", ["model.mask=true"])
    (folder / "runs/pets/metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 2.0}\n')
    source = {"format": "voc", "root": str(trained / "data"), "split": "test"}
    mine = {"base": str(trained / "config.yaml"), "data": {"train": [source]}, "train": {"steps": 1}, "output_dir": "runs/mine"}
    (folder / "mine.yaml").write_text(yaml.safe_dump(mine))
    save_checkpoint({"model": build_backbone("resnet18", num_classes=10).state_dict()}, folder / "model.pt")
    (folder / "thresholds.yaml").write_text("cat: 0.4\ndog: 0.62\n")
    (folder / "configs").symlink_to(ROOT / "configs")
    cv2.imwrite(str(folder / "photo.jpg"), np.random.default_rng(1).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    return folder


@pytest.fixture
def namespace(prepared) -> dict[str, object]:
    """What snippets take for given: an image, a batch of them, ground truth and detections."""
    model = load_detector(prepared / "best.pt")
    dataset = load_dataset(model.config.data.test, model.config.data.classes)
    return {
        "image": np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8),
        "images": torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8),
        "records": dataset.records,
        "detections": predict_dataset(model, dataset.records, workers=0),
        "class_names": dataset.class_names,
    }


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_snippets_of_a_page_run(page, prepared, namespace, monkeypatch):
    monkeypatch.chdir(prepared)
    shutil.rmtree("runs/mine", ignore_errors=True)  # which several pages train
    for name in ("BACKBONES", "FAMILIES"):  # a page registers its own
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    for block in PYTHON[page]:
        code = ("\n" * (block.line - 1)) + block.text  # so that an error names the page's own line
        compiled = compile(code, name_of(page), "exec")
        if block.not_run is None:
            exec(compiled, namespace)
        else:
            import_only(block, namespace)


def import_only(block: Block, namespace: dict[str, object]) -> None:
    """Of a snippet that cannot run here: what it imports exists."""
    for node in ast.parse(block.text).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            exec(compile(ast.Module([node], []), str(block), "exec"), namespace)


@pytest.mark.parametrize("block", [block for found in PYTHON.values() for block in found if block.not_run], ids=str)
def test_a_snippet_that_is_not_run_says_why(block):
    assert block.not_run is not None and len(block.not_run) > 10


def test_few_snippets_are_not_run():
    found = [block for page in PYTHON.values() for block in page]
    assert len(found) >= 14
    assert sum(block.not_run is not None for block in found) <= len(found) / 4


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_of_the_pages_is_a_valid_config(block, tmp_path, monkeypatch):
    from detection.config import load_config

    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "page.yaml").write_text(block.text)
    monkeypatch.chdir(tmp_path)
    load_config(Path("page.yaml"))
