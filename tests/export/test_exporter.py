"""Exported networks compute what PyTorch computes, for any number of images of any size; nothing else is ever written."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.torch_version import TorchVersion
from torch.utils._pytree import tree_leaves
from torchvision.ops import batched_nms

from backbones import build_backbone
from detection.errors import CheckpointError, ConfigError
from detection.export import export_backbone, export_detector, graph
from detection.export import exporter as exporting
from detection.export.agreement import Agreement, compare_detections
from detection.export.exported import config_of_graph
from detection.export.exporter import Exportable, export, exportable_detector
from detection.export.runtimes import OnnxFile
from detection.structures import Batch, Detections, pad_images
from tests.small_detector import detector, noise, select_one

NEW_ENOUGH = torch.__version__ >= exporting.OLDEST_TORCH
pytestmark = pytest.mark.skipif(not NEW_ENOUGH, reason=f"exporting needs torch {exporting.OLDEST_TORCH} or newer")
SIZES = {"one": [(64, 96)], "two": [(100, 64), (100, 64)]}


def run_onnx(file, *inputs: torch.Tensor) -> list[torch.Tensor]:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    outputs = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
    return [torch.from_numpy(output) for output in outputs]


def by_image(outputs: list[torch.Tensor], num_images: int) -> list[Detections]:
    boxes, scores, labels, image_index = outputs
    assert image_index.tolist() == sorted(image_index.tolist())
    return [Detections(boxes, scores, labels)[image_index == index] for index in range(num_images)]


def assert_same(found: Sequence[Detections], expected: Sequence[Detections]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.labels.tolist() == theirs.labels.tolist()
        torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-4)


@torch.inference_mode()
def detections_of_steps(model, batch: Batch) -> list[Detections]:
    """A padded batch, by the model's own steps."""
    features = model.extract(batch)
    regions = model.classify(features, model.propose(features, batch.sizes_hw), batch.sizes_hw)
    parts = zip(regions.scores, regions.boxes, batch.sizes_hw, strict=True)
    return [select_one(scores, boxes, size_hw, model.config.test, model.score_threshold) for scores, boxes, size_hw in parts]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return detector(test={"max_detections": 20}).eval()


@pytest.fixture(scope="module")
def onnx_file(model, module_path):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    file = module_path / "detector.onnx"
    assert "20 of 20 detections agree" in export_detector(model, file)
    return file


@pytest.fixture(scope="module")
def program_file(model, module_path):
    file = module_path / "detector.pt2"
    assert "20 of 20 detections agree" in export_detector(model, str(file))
    return file


def run_program(file, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return torch.export.load(file).module()(*inputs)


@pytest.fixture(params=["onnx", "program"])
def run(request):
    """The exported detector as a function."""
    file = request.getfixturevalue(f"{request.param}_file")
    return lambda *inputs: (run_onnx if request.param == "onnx" else run_program)(file, *inputs)


@pytest.mark.parametrize("sizes_hw", SIZES.values(), ids=SIZES)
def test_images_of_one_size_give_what_predict_gives(run, model, sizes_hw):
    images = [noise(*size_hw) for size_hw in sizes_hw]
    found = run(torch.stack(images), torch.tensor(sizes_hw))
    assert len(found[0]) == 20 * len(images)
    assert_same(by_image(found, len(images)), model.predict(images))


def test_images_of_different_sizes_and_one_without_detections(run, model):
    # Of another remainder by 4 than the image that was traced; the last is smaller than the smallest proposal.
    sizes_hw = [(64, 97), (82, 50), (3, 3)]
    images = [noise(*size_hw) for size_hw in sizes_hw]
    padded = pad_images(images)
    expected = detections_of_steps(model, Batch(padded, sizes_hw))
    assert padded.shape[2:] == (82, 97)
    assert [len(detections) for detections in expected] == [20, 20, 0]
    padded[1, :, :, 50:] = 77  # what is in the padding has no effect
    assert_same(by_image(run(padded, torch.tensor(sizes_hw)), 3), expected)


def test_no_detection_at_all(run):
    found = run(noise(64, 64)[None], torch.tensor([[2, 60]]))
    assert [tuple(output.shape) for output in found] == [(0, 4), (0,), (0,), (0,)]
    assert [output.dtype for output in found] == [torch.float32, torch.float32, torch.int64, torch.int64]


def test_the_file_says_what_it_is(onnx_file, program_file):
    import onnx

    model = onnx.load(onnx_file)
    about = {entry.key: entry.value for entry in model.metadata_props}
    extra = {"metadata.json": ""}
    torch.export.load(program_file, extra_files=extra)
    told = json.loads(extra["metadata.json"])
    assert told["class_names"] == json.loads(about["class_names"]) == ["cat", "dog"]
    assert told["shorter_side"] == int(about["shorter_side"]) == 64 and about["longer_side"] == "100"
    assert about["kind"] == told["kind"] == "detector" and told["preprocessing"]["channel_order"] == "rgb"
    shapes = {
        entry.name: [dim.dim_param or dim.dim_value for dim in entry.type.tensor_type.shape.dim] for entry in model.graph.input
    }
    assert shapes == {"images": ["batch", 3, "height", "width"], "sizes_hw": ["batch", 2]}
    contents = onnx_file.read_bytes()
    assert b"detection/export" not in contents and b"detection/modeling" not in contents  # paths of this machine


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_threshold_for_each_class(tmp_path, suffix, model):
    for package in ("onnxscript", "onnxruntime") if suffix == ".onnx" else ():
        pytest.importorskip(package, reason=f"{package} is not installed")
    images = [noise(64, 96)]
    every = model.predict(images)[0]
    dogs = every.scores[every.labels == 1]  # by descending score
    widest = int((dogs[:-1] - dogs[1:]).argmax())
    middle = float(dogs[widest : widest + 2].mean())  # far from any score, which is rounded otherwise in the file
    strict = detector(test={"max_detections": 20, "score_threshold": {"dog": middle, "cat": 1e-3}}).eval()
    strict.load_state_dict(model.state_dict())
    exportable = exportable_detector(strict)
    assert exportable.metadata["score_threshold"] == {"cat": 1e-3, "dog": middle}
    file = tmp_path / f"detector{suffix}"
    export(exportable, file)
    found = by_image((run_onnx if suffix == ".onnx" else run_program)(file, torch.stack(images), torch.tensor([[64, 96]])), 1)
    assert_same(found, strict.predict(images))
    assert 0 < int((found[0].labels == 1).sum()) < int((every.labels == 1).sum())


def test_metadata_name_every_class():
    left_out = exportable_detector(detector(test={"score_threshold": {"dog": 0.7}})).metadata["score_threshold"]
    assert left_out == {"cat": 0.05, "dog": 0.7} and json.loads(json.dumps(left_out)) == left_out
    assert exportable_detector(detector(test={"score_threshold": 0.3})).metadata["score_threshold"] == 0.3


@pytest.mark.parametrize("refining", [{}, {"refinement": "average", "refine_scores": (0.3, 0.9)}])
def test_context_refinement_max_pooling_and_the_authors_strides(tmp_path, refining):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    torch.manual_seed(0)
    model = detector(
        model={"stem_pool": "ceil", "norm": "frozen_bn"},
        roi={"context": True, "pooling": "max"},
        test={"refinement_passes": 1, "max_detections": 50, **refining},
    ).eval()
    export_detector(model, tmp_path / "detector.onnx")
    images = [noise(65, 97), noise(65, 97)]
    found = by_image(run_onnx(tmp_path / "detector.onnx", torch.stack(images), torch.tensor([[65, 97]] * 2)), 2)
    for ours, theirs in zip(found, detector_predictions_at(model, images), strict=True):
        agreement = compare_detections(ours, theirs)
        assert agreement.close_enough and len(ours) == len(theirs), agreement.sentence


@pytest.mark.parametrize("refinement", ["unite", "average"])
@pytest.mark.parametrize("refine_scores", [(0, 1), (0.45, 1), (0, 0.45)])
def test_the_graph_refines_as_inference_does(refinement, refine_scores):
    torch.manual_seed(0)
    settings = {"refinement_passes": 2, "refinement": refinement, "refine_scores": refine_scores}
    model = detector(test={**settings, "max_detections": 50}).eval()
    nn.init.normal_(model.roi_head.class_scores.weight, std=0.05)
    nn.init.normal_(model.roi_head.box_deltas.weight, std=0.05)
    images = [noise(65, 97), noise(65, 97)]
    with torch.inference_mode():
        outputs = graph.DetectorGraph(model)(torch.stack(images), torch.tensor([[65, 97]] * 2))
    for ours, theirs in zip(by_image(list(outputs), 2), detector_predictions_at(model, images), strict=True):
        agreement = compare_detections(ours, theirs)
        assert agreement.close_enough and len(ours) == len(theirs) > 5, agreement.sentence


def test_a_file_says_how_its_graph_refines_and_an_older_one_does_as_the_paper():
    settings = {"refinement_passes": 1, "refinement": "average", "refine_scores": (0.1, 0.9)}
    entries = exportable_detector(detector(test=settings)).metadata
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries.items()}
    test = config_of_graph(OnnxFile(Path("detector.onnx"), b"", metadata, ())).test
    assert {name: getattr(test, name) for name in settings} == settings
    older = {key: value for key, value in metadata.items() if key not in ("refinement", "refine_scores")}
    test = config_of_graph(OnnxFile(Path("detector.onnx"), b"", older, ())).test
    assert (test.refinement_passes, test.refinement, test.refine_scores) == (1, "unite", (0, 1))


def detector_predictions_at(model, images) -> list[Detections]:
    """Predictions without a resize: the settings' size is the images' own."""
    settings = model.config.test.model_copy(update={"shorter_side": min(images[0].shape[1:]), "longer_side": 1000})
    model.use_test_config(settings)
    return model.predict(images)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_backbone(tmp_path, suffix):
    for package in ("onnxscript", "onnxruntime") if suffix == ".onnx" else ():
        pytest.importorskip(package, reason=f"{package} is not installed")
    backbone = build_backbone("cifar_resnet8", norm="frozen_bn").eval()
    assert "features differ" in export_backbone(backbone, "cifar_resnet8", tmp_path / f"backbone{suffix}")
    images = torch.stack([noise(37, 61)] * 3)
    found = (run_onnx if suffix == ".onnx" else run_program)(tmp_path / f"backbone{suffix}", images)
    with torch.no_grad():
        expected = backbone(backbone.preprocessing.normalize(images))
    for ours, theirs in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [("resnet18", {}, 3), ("resnet34_c", {}, 3), ("resnet50_half", {}, 3), ("resnet50_half", {"stride_in_1x1": True}, 6)],
)
@torch.no_grad()
def test_no_1x1_convolution_of_a_graph_has_a_stride(name, options, count):
    backbone = build_backbone(name, norm="frozen_bn", **options).eval()
    copied = graph.frozen_copy(backbone).double()
    backbone.double()
    convs = [module for module in copied.modules() if isinstance(module, nn.Conv2d)]
    strided = [conv for conv in convs if conv.kernel_size == (1, 1) and conv.stride != (1, 1)]
    assert len(strided) == count and all(isinstance(conv, graph.PickingConv2d) for conv in strided)
    assert {key for key in copied.state_dict() if "num_batches" not in key} == set(backbone.state_dict())
    for size_hw in ((64, 96), (33, 71)):
        images = torch.randn(2, 3, *size_hw, dtype=torch.float64)
        for ours, theirs in zip(copied(images).values(), backbone(images).values(), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"voting": True}, "test.voting=true cannot be exported, only one view at one scale can: set test.voting=false"),
        ({"flip": True}, "test.flip=true"),
        ({"tile": 800}, "test.tile=800"),
        ({"scales": [64, 96]}, r"test.scales=\[64, 96\] .* set test.scales=\[\]"),
        ({"shorter_side": 20}, "test.shorter_side=20 cannot be exported: it must be at least 32"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        exportable_detector(detector(test=settings))


class Halved(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images / 2,)


class Capricious(nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images / 2 if images.sum() > 0 else images,)


def trifle(network: nn.Module, close_enough: bool, sentence: str) -> Exportable:
    metadata = {"backbone": type(network).__name__}
    image = noise(8, 8)[None]
    return Exportable(
        lambda suffix: network, ("images",), ("halves",), metadata, 2, image, lambda outputs: Agreement(close_enough, sentence)
    )


def test_what_computes_something_else_is_not_written(tmp_path):
    file = tmp_path / "sub" / "x.pt2"
    assert export(trifle(Halved(), True, "fine"), file).endswith("random 8x8 image, fine")
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=r"x.pt2 was not written: run by torch.export .*, 3 of 9 agree"):
        export(trifle(Halved(), False, "3 of 9 agree"), file)
    with pytest.raises(CheckpointError, match="Capricious cannot be exported: "):
        export(trifle(Capricious(), True, ""), file)
    assert file.read_bytes() == before and [entry.name for entry in file.parent.iterdir()] == ["x.pt2"]
    folder = tmp_path / "folder.pt2"
    folder.mkdir()
    with pytest.raises(CheckpointError, match=r"cannot write .*folder.pt2: Is a directory; "):
        export(trifle(Halved(), True, ""), folder)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.pt2", "sub"]


def test_without_the_packages(tmp_path, monkeypatch):
    find_spec = exporting.importlib.util.find_spec
    absent = ["onnxruntime"]
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name in absent else find_spec(name))
    if find_spec("onnxscript") is not None:
        assert "not checked: onnxruntime is not installed" in export(trifle(Halved(), False, ""), tmp_path / "x.onnx")
        assert (tmp_path / "x.onnx").exists()
    absent.append("onnxscript")
    with pytest.raises(ConfigError, match=r"onnxscript must be installed: pip install 'resdet\[export\]'"):
        export(trifle(Halved(), True, ""), tmp_path / "y.onnx")
    with pytest.raises(ConfigError, match=r"y.txt: the suffix tells the format and must be .onnx or .pt2"):
        export(trifle(Halved(), True, ""), tmp_path / "y.txt")


def test_a_file_that_onnxruntime_cannot_run():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    helper = pytest.importorskip("onnx", reason="onnx is not installed").helper
    ports = [helper.make_tensor_value_info(name, 1, [1]) for name in ("images", "halves")]
    unknown = helper.make_graph([helper.make_node("Halve", ["images"], ["halves"])], "unknown", ports[:1], ports[1:])
    contents = helper.make_model(unknown).SerializeToString()
    with pytest.raises(CheckpointError, match="^onnxruntime [0-9.]+ cannot run the model: "):
        exporting._run_onnx(contents, trifle(Halved(), True, ""))


def test_grouped_nms_is_nms_in_each_group():
    corners = torch.rand(3, 40, 2) * 50
    boxes = torch.cat([corners, corners + torch.rand(3, 40, 2) * 50], dim=2)
    scores = torch.rand(3, 40)
    scores[0, ::2] = -torch.inf
    scores[1] = -torch.inf
    kept = graph.grouped_nms(boxes, scores, 0.5, 40)
    there = scores > -torch.inf
    groups = torch.arange(3)[:, None].expand(3, 40)
    expected = batched_nms(boxes[there], scores[there], groups[there], 0.5)
    assert kept.nonzero().tolist() == there.nonzero()[expected.sort().values].tolist()
    assert not graph.grouped_nms(boxes, torch.full_like(scores, -torch.inf), 0.5, 40).any()


def test_compare_detections():
    one = Detections(torch.tensor([[0.0, 0, 10, 10]] * 60), torch.linspace(1, 0, 60), torch.zeros(60, dtype=torch.long))
    near = replace(one, boxes=one.boxes + 0.004, scores=one.scores + 2e-5)
    assert compare_detections(near, one) == Agreement(
        True,
        "60 of 60 detections agree with PyTorch's, boxes to 0.004 px, scores to 2e-05",
    )
    assert compare_detections(near[1:], one).close_enough and not compare_detections(near[2:], one).close_enough
    assert not compare_detections(replace(one, labels=one.labels + 1), one).close_enough
    assert compare_detections(Detections.empty(), Detections.empty()) == Agreement(True, "nothing is found, as by PyTorch")
    assert compare_detections(Detections.empty(), one) == Agreement(False, "0 of 60 detections agree with PyTorch's")


def test_an_older_torch(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.0"))
    with pytest.raises(ConfigError, match=r"torch must be 2\.11 or newer, and is 2\.8\.0: pip install -U"):
        exporting.check_format(tmp_path / "detector.pt2")


def test_nothing_of_a_moved_program_names_the_cpu(program_file):
    """`meta` stands for a device that this machine does not have."""
    place = torch.device("meta")
    program = exporting.moved(program_file.read_bytes(), place)
    tensors = [*program.state_dict.values(), *(each for each in program.constants.values() if isinstance(each, torch.Tensor))]
    assert tensors and {each.device for each in tensors} == {place}
    nodes = [
        node for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule) for node in part.graph.nodes
    ]
    named = {str(each) for node in nodes for each in tree_leaves((node.args, node.kwargs)) if is_device(each)}
    assert named == {"meta"}


def is_device(value: object) -> bool:
    return isinstance(value, torch.device) or value in ("cpu", "meta")


@pytest.mark.parametrize("device", ["cuda", "mps", "xpu:1"])
def test_an_onnx_file_has_no_device(tmp_path, device):
    with pytest.raises(ConfigError, match=rf"x.onnx: .* leave out --device {device}, or write a .pt2"):
        exporting.check_format(tmp_path / "x.onnx", device)
