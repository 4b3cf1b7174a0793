"""Published weights by name. The publishers' server is one on this machine."""

import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torchvision

from backbones import CheckpointError, build_backbone, build_c4, list_weights, load_checkpoint
from backbones.weights import zoo
from backbones.weights.download import Digest
from backbones.weights.zoo import PublishedWeights, classifier_file, converted_file, find_published, published_file
from tests.foreign_weights import msra_classifier

NAME = "torchvision/resnet18"


@pytest.fixture(scope="module")
def published() -> bytes:
    """A file like torchvision's."""
    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), stream)
    return stream.getvalue()


@pytest.fixture
def server(server, monkeypatch, tmp_path):
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    return server


def offer(server, monkeypatch, content: bytes, name: str = NAME) -> PublishedWeights:
    """Let a name of the zoo stand for a file of the server's, with its hash in its name."""
    file = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[file] = content
    entry = PublishedWeights(name, f"{server.url}/{file}", "classifier")
    monkeypatch.setitem(zoo.ZOO, name, entry)
    return entry


def size_of(source: Path) -> dict[str, int]:
    """A conversion that takes no time."""
    return {"bytes": source.stat().st_size}


def test_the_table_is_torchvisions():
    ours = {name: entry.url for name, entry in zoo.ZOO.items() if name.startswith("torchvision/")}
    for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16"):
        weights = torchvision.models.get_model_weights(name)
        assert ours.pop(f"torchvision/{name}") == weights.IMAGENET1K_V1.url
        if f"torchvision/{name}_v2" in ours:
            assert ours.pop(f"torchvision/{name}_v2") == weights.IMAGENET1K_V2.url
    for name, url in ours.items():
        assert url == torchvision.models.get_model_weights(name.removeprefix("torchvision/")).COCO_V1.url


def test_hashes_are_those_in_the_names():
    digests = {name: zoo.ZOO[name].digest for name in list_weights()}
    assert digests["torchvision/resnet101"] == Digest("sha256", "63fe2227")
    assert digests["detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x"] == Digest("md5", "298dad")
    assert {name for name, digest in digests.items() if digest is None} == {"msra/R-50", "msra/R-101"}
    assert len({entry.url.rpartition("/")[2] for entry in zoo.ZOO.values()}) == len(zoo.ZOO)
    detectors = ("detectron2/", "torchvision/fasterrcnn", "torchvision/maskrcnn")
    assert set(list_weights("detector")) == {name for name in list_weights() if name.startswith(detectors)}


def test_the_documentation_lists_every_name():
    page = (Path(__file__).parents[3] / "docs" / "weights.md").read_text()
    table = page.partition("## Converting a file")[0]
    families = "torchvision|msra|detectron2"
    assert set(re.findall(rf"`((?:{families})/[\w/-]+)`", table)) == set(list_weights())


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"RESDET_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/resdet"),
        ({"HOME": "/home/me"}, "/home/me/.cache/resdet"),
    ],
)
def test_where_the_cache_is(environment, folder, monkeypatch):
    for name in ("RESDET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert zoo.cache_folder() == Path(folder)


def test_a_backbone_by_name(server, monkeypatch, published, tmp_path):
    offer(server, monkeypatch, published)
    reports = []
    file = classifier_file(NAME, lambda done, total: reports.append((done, total)))
    assert reports[-1] == (len(published), len(published))
    assert file.is_relative_to(tmp_path / "cache" / "v1" / "torchvision")
    recorded = load_checkpoint(file)["metadata"]["config"]["model"]
    assert recorded == {
        "backbone": "resnet18",
        "stride_in_1x1": False,
        "stem_pool": "pad1",
    }
    expected = torch.load(io.BytesIO(published), weights_only=True)
    backbone = build_backbone("resnet18", NAME, num_classes=2)
    assert all(torch.equal(value, expected[key]) for key, value in backbone.state_dict().items())
    trunk, _ = build_c4("resnet18", weights=Path(NAME))
    assert torch.equal(trunk.state_dict()["layer3.0.conv1.weight"], expected["layer3.0.conv1.weight"])
    assert len(server.requests) == 1
    with pytest.raises(CheckpointError, match="holds a resnet18, not a resnet34"):
        build_backbone("resnet34", NAME)


def test_the_authors_models_keep_their_meaning(server, monkeypatch):
    server.files["R-50.pkl"] = pickle.dumps({"blobs": msra_classifier(50, num_classes=2)}, protocol=2)
    monkeypatch.setitem(zoo.ZOO, "msra/R-50", PublishedWeights("msra/R-50", f"{server.url}/R-50.pkl", "classifier"))
    with pytest.raises(CheckpointError, match="stride_in_1x1=True"):
        build_backbone("resnet50", "msra/R-50")
    backbone = build_backbone("resnet50", "msra/R-50", stride_in_1x1=True, stem_pool="ceil")
    assert backbone.preprocessing.channel_order == "bgr"


def test_damaged_files_are_made_again(server, monkeypatch):
    entry = offer(server, monkeypatch, b"as published")
    made = converted_file(entry, size_of)
    good = made.read_bytes()
    made.write_bytes(good[:-1] + b"?")
    assert converted_file(entry, size_of).read_bytes()  # from the file that is still there
    assert len(server.requests) == 1
    for file in made.parent.glob("*.pt"):
        file.write_bytes(b"?")
    entry.file.write_bytes(b"?")
    assert load_checkpoint(converted_file(entry, size_of)) == {"bytes": 12}
    assert len(server.requests) == 2 and len(list(made.parent.iterdir())) == 1


def test_the_published_file_may_go_once_it_is_converted(server, monkeypatch):
    entry = offer(server, monkeypatch, b"as published")
    made = converted_file(entry, size_of)
    entry.file.unlink()
    assert converted_file(entry, size_of) == made and len(server.requests) == 1


def test_offline_the_url_and_the_place_are_told(server, monkeypatch, tmp_path):
    entry = PublishedWeights(NAME, "http://127.0.0.1:9/resnet18-f37072fd.pth", "classifier")
    monkeypatch.setitem(zoo.ZOO, NAME, entry)
    place = tmp_path / "cache" / "downloads" / "resnet18-f37072fd.pth"
    with pytest.raises(CheckpointError) as error:
        build_backbone("resnet18", NAME)
    text = str(error.value)
    assert entry.url in text and "refused" in text and f"put it at {place}" in text and "\n" not in text


def test_a_file_put_there_by_hand_is_verified_and_used(server, monkeypatch):
    content = b"as published"
    file = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    entry = PublishedWeights(NAME, f"http://127.0.0.1:9/{file}", "classifier")
    entry.file.parent.mkdir(parents=True)
    entry.file.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"not the file that was published.*cannot download.*put it at"):
        converted_file(entry, size_of)
    entry.file.write_bytes(content)
    assert load_checkpoint(converted_file(entry, size_of)) == {"bytes": 12}
    assert published_file(entry) == entry.file


def test_another_file_than_was_published(server, monkeypatch):
    entry = offer(server, monkeypatch, b"as published")
    server.files[entry.file.name] = b"something else"
    with pytest.raises(CheckpointError, match=f"{NAME}: .* begins with .*, not .*deleted"):
        published_file(entry)
    assert [path.suffix for path in entry.file.parent.iterdir()] in ([], [".lock"])


def test_a_full_disk_leaves_nothing_half_written(server, monkeypatch):
    entry = offer(server, monkeypatch, b"as published")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device, make room; 12 bytes are kept"):
            converted_file(entry, size_of)
    assert not entry.file.exists()
    published_file(entry)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            converted_file(entry, size_of)
    assert not [path for path in (zoo.cache_folder() / zoo.LAYOUT).rglob("*") if path.is_file()]
    converted_file(entry, size_of)


def test_a_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="set RESDET_CACHE"):
        converted_file(offer(server, monkeypatch, b"x"), size_of)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torchvision/resnet1O1", "did you mean 'torchvision/resnet101'"),
        ("resnet101", "did you mean 'torchvision/resnet101'"),
        (
            "detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x.yaml",
            "did you mean 'detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x'",
        ),
        ("msra/anything", "known are msra/R-50, msra/R-101"),
    ],
)
def test_an_unknown_name(name, words):
    with pytest.raises(CheckpointError, match=words):
        build_backbone("resnet101", name)


@pytest.mark.parametrize(
    "name",
    ["../x", "hf:a/b", "a\0b", "msra/\0", "\x1b[2Jx", "torchvision/\x1b[2J\n", "msra/" + "x" * 10**5, "https://a.b/c.pth"],
)
def test_an_odd_name_is_one_line(name):
    with pytest.raises(CheckpointError) as caught:
        classifier_file(name) and build_backbone("resnet50", name)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_a_detectors_name_is_no_backbones():
    with pytest.raises(CheckpointError, match="is a detector's; a classifier's is needed here: one of torchvision/resnet18"):
        build_backbone("resnet101", "detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x")


def test_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        find_published("torchvision/resnet18.pth") is None
        and find_published("runs/a/last.pt") is None
        and find_published("runs/model") is None
    )
    Path("torchvision").mkdir()
    assert find_published("torchvision/resnet18") is not None
    Path("torchvision/resnet18").write_bytes(b"")
    assert find_published("torchvision/resnet18") is None and classifier_file("torchvision/resnet18") == Path(
        "torchvision/resnet18"
    )


PROGRAM = """
import sys
from pathlib import Path
from backbones.weights.zoo import PublishedWeights, converted_file
print("ready", flush=True)
entry = PublishedWeights("torchvision/resnet18", sys.argv[1], "classifier")
print(converted_file(entry, lambda source: {"bytes": source.stat().st_size}))
"""


def start(entry: PublishedWeights) -> subprocess.Popen:
    """A process that wants the entry, about to ask for it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, entry.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_one_process_downloads_for_all_and_a_killed_one_is_succeeded(server, monkeypatch):
    entry = offer(server, monkeypatch, bytes(50_000))
    gates = [threading.Event(), threading.Event()]
    server.etag, server.gates = '"1"', list(zip((20_000, 10_000), gates, strict=True))
    killed = start(entry)
    part = entry.file.with_name(entry.file.name + ".part")
    while not (part.exists() and part.stat().st_size):
        assert killed.poll() is None
        time.sleep(0.01)
    others = [start(entry), start(entry)]
    assert len(server.requests) == 1
    killed.kill()
    killed.communicate()
    while len(server.requests) == 1:
        assert all(process.poll() is None for process in others)
        time.sleep(0.01)
    for gate in gates:
        gate.set()
    found = {process.communicate()[0].strip() for process in others}
    assert len(found) == 1 and load_checkpoint(found.pop()) == {"bytes": 50_000}
    assert len(server.requests) == 2 and server.requests[1].startswith("bytes=")
