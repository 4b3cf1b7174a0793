"""Backbones of other packages: found by their entry points, imported when named, and one line where they are broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backbones import BackboneError, build_backbone, build_c4, list_backbones, load_c4, registry, split_modules
from detection.inference.detector import load_detector
from tests.data.pictures import CLASSES, write_devkit

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "plugin"
GOOD = """
from torch import nn
from backbones import Backbone

class Net(Backbone):
    def __init__(self):
        super().__init__()
        self.channels, self.strides = {"c4": 4}, {"c4": 16}
        self.conv = nn.Conv2d(3, 4, 16, stride=16)

    def forward(self, images):
        return {"c4": self.conv(images)}

def build(options):
    return Net()
"""


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """offer(package, name, source): as if a package with a module of that source and the entry point `name` were installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def install(package: str, name: str, source: str, builder: str = "build") -> None:
        module = f"plugin_of_{package}"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[resdet.backbones]\n{name} = {module}:{builder}\n")

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def test_a_name_is_listed_without_import_and_imported_once(offer, tmp_path):
    offer("good", "outside", GOOD + f"\nopen({str(tmp_path / 'imports')!r}, 'a').write('x')\n")
    assert "outside" in list_backbones()
    assert "plugin_of_good" not in sys.modules
    for _ in range(2):
        assert build_backbone("outside")(torch.zeros(1, 3, 32, 48))["c4"].shape == (1, 4, 2, 3)
    assert (tmp_path / "imports").read_text() == "x"
    with pytest.raises(BackboneError, match=r"define split_c4\(\), which backbones.split_modules"):
        build_c4("outside")


def test_a_decorator_in_the_module_does_not_clash_with_the_entry_point(offer, monkeypatch):
    monkeypatch.setattr(registry, "BACKBONES", dict(registry.BACKBONES))
    decorated = GOOD.replace("def build", "@register_backbone\ndef both_ways").replace("import Backbone", "import *")
    offer("decorated", "both_ways", decorated, builder="both_ways")
    for _ in range(2):
        assert build_backbone("both_ways").strides == {"c4": 16}
    assert list_backbones().count("both_ways") == 1


def test_a_name_of_ours_and_an_unknown_one_import_nothing(offer):
    offer("rival", "resnet18", "raise AssertionError")
    offer("other", "resnet_outside", "raise AssertionError")
    assert build_backbone("resnet18").channels["c5"] == 512
    with pytest.raises(BackboneError, match="unknown backbone 'resnet_outsid'; did you mean 'resnet_outside'"):
        build_backbone("resnet_outsid")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
        ("raise KeyError('x' * 10**6)", "cannot be loaded: KeyError: 'x{299}"),
        ("raise OSError('\x1b[31m')", r"cannot be loaded: OSError: \\x1b"),
        ("def build(options): return options.depth", "cannot be built: AttributeError: .* no attribute 'depth'"),
        ("def build(options): raise SystemExit(1)", "cannot be built: SystemExit: 1"),
        ("build = None", r"is not a builder\(options: BackboneOptions\) -> Backbone: None is not a callable object"),
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise OSError('no\\nluck')", "cannot be loaded: OSError: no luck"),
        ("x = 1", "cannot be loaded: AttributeError: module 'plugin_of_bad' has no attribute 'build'"),
        ("build = 3", r"is not a builder\(options: BackboneOptions\) -> Backbone: 3 is not a callable object"),
        ("def build(*, norm, num_classes): pass", r"is not a builder.*; the options come as one backbones.BackboneOptions"),
    ],
)
def test_a_broken_plugin_is_one_line(offer, source, message):
    offer("bad", "broken", source)
    with pytest.raises(
        BackboneError, match=rf"backbone 'broken' of package bad \(entry point plugin_of_bad:build\) {message}"
    ) as it:
        build_backbone("broken")
    assert "\n" not in str(it.value) and len(str(it.value)) < 500


def test_a_builder_that_returns_something_else(offer):
    offer("odd", "odd", "def build(options):\n    return 3\n")
    with pytest.raises(BackboneError, match="builder of 'odd' must return a backbones.Backbone, not a int"):
        build_backbone("odd")


def test_two_packages_with_one_name(offer):
    offer("first", "twice", GOOD)
    offer("second", "twice", GOOD)
    with pytest.raises(BackboneError, match=r"'twice' is offered by package first \(.*\) and by package second \(.*uninstall"):
        build_backbone("twice")
    assert not {"plugin_of_first", "plugin_of_second"} & sys.modules.keys()


@pytest.fixture(scope="module")
def installed(module_path) -> Path:
    """The folder that pip installed the example package into."""
    source = shutil.copytree(EXAMPLE, module_path / "source")  # a build leaves files beside it
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", module_path / "site", source], check=True, capture_output=True)
    return module_path / "site"


@pytest.fixture
def tinynet(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    yield
    sys.modules.pop("tinynet", None)


def test_the_example_package_trains_a_detector(installed, tmp_path, tinynet):
    write_devkit(tmp_path)
    source = f"[{{format: voc, root: {tmp_path}, year: 2007, split: trainval}}]"
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config", str(EXAMPLE / "tinynet.yaml")]
    changes = [
        f"data.classes=[{', '.join(CLASSES)}]",
        f"data.train={source}",
        f"data.val={source}",
        "data.workers=0",
        "data.shorter_sides=[64]",
        "test.shorter_side=64",
        "train.batch_size=2",
        "train.images_per_device=2",
        "train.steps=2",
        f"output_dir={tmp_path / 'run'}",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    result = subprocess.run([*command, *changes], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    model = load_detector(tmp_path / "run" / "last.pt")
    assert (model.trunk.channels, model.trunk.stride, model.roi_head.conv5.channels) == (128, 16, 256)


def test_the_example_packages_halves_are_the_whole(tinynet):
    whole = build_backbone("tinynet", num_classes=3, freeze_stages=2).eval()
    trunk, head = build_c4("tinynet", norm="frozen_bn", freeze_stages=2)
    load_c4(trunk, head, whole.state_dict())
    images = torch.randn(2, 3, 64, 96)
    features = whole(images)
    torch.testing.assert_close(trunk(images), features["c4"])
    torch.testing.assert_close(head(trunk(images)), features["c5"].mean((2, 3)))
    assert trunk.frozen == ("stage1", "stage2") and head.frozen == ()
    assert whole.logits(images).shape == (2, 3)


def test_split_modules_says_what_is_wrong(tinynet):
    net = build_backbone("tinynet")
    with pytest.raises(BackboneError, match="TinyNet has no module 'stage9'; it has stage1, stage2"):
        split_modules(net, ["stage1"], ["stage9"])
    with pytest.raises(BackboneError, match="TinyNet has no map 'c6'; it has c2, c3, c4, c5"):
        split_modules(net, ["stage1"], ["stage2"], head_map="c6")
