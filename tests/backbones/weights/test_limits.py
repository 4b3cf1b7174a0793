"""Small files that would grow: each is refused in one line, in little time and memory."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backbones.errors import CheckpointError
from backbones.weights.files import load_checkpoint
from backbones.weights.limits import MAX_DEPTH, MAX_OBJECTS, MAX_TENSORS

ROOT = Path(__file__).parents[3]


def doubled(levels: int, kind: Callable[[tuple[Any, Any]], Any]) -> Any:
    value = kind((1, 2))
    for _ in range(levels):
        value = kind((value, value))
    return value


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


def circular() -> list[Any]:
    value: list[Any] = []
    value.append({"again": value})
    return value


CONTENTS: dict[str, Callable[[], Any]] = {
    "a list doubled": lambda: {"version": doubled(60, list)},
    "a tuple doubled": lambda: {"version": doubled(60, tuple)},
    "a mapping doubled": lambda: {"config": doubled(60, lambda pair: dict(enumerate(pair)))},
    "a long text often": lambda: {"names": ["x" * 1_000_000] * 1000},
    "nested lists": lambda: {"version": nested(400, lambda value: [value])},
    "nested mappings": lambda: {"version": nested(400, lambda value: {"a": value})},
    "a circle": lambda: {"config": circular()},
}


def save_zip(contents: Any, path: Path) -> None:
    torch.save(contents, path)


def save_legacy(contents: Any, path: Path) -> None:
    torch.save(contents, path, _use_new_zipfile_serialization=False)


def save_pickle(contents: Any, path: Path) -> None:
    path.with_suffix(".pkl").write_bytes(pickle.dumps(contents, protocol=2))


def refusal(path: Path) -> str:
    """The message of the error that reading it raises: one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 400 + len(str(path))
    return message


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle])
@pytest.mark.parametrize("name", CONTENTS)
def test_contents_that_have_no_end(tmp_path: Path, name: str, save: Callable[[Any, Path], None]) -> None:
    save(CONTENTS[name](), tmp_path / "x.pt")
    (path,) = tmp_path.iterdir()
    assert "no file of weights needs that" in refusal(path)


def tuple_tower(levels: int, as_key: bool) -> bytes:
    """A pickle of a tuple of the last tuple twice, and so on; as a key its hash visits 2^levels objects."""
    data = bytearray(b"\x80\x02}N")
    for level in range(levels):
        data += bytes([ord("q"), level]) + b"h" + bytes([level]) + b"\x86"
    return bytes(data + (b"N" if as_key else b"Na\x85")[:1] + b"s.")


@pytest.mark.parametrize("levels", [30, 200])
def test_keys_that_are_hashed_without_end(tmp_path: Path, levels: int) -> None:
    (tmp_path / "x.pkl").write_bytes(tuple_tower(levels, as_key=True))
    assert "no file of weights needs that" in refusal(tmp_path / "x.pkl")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", tuple_tower(levels, as_key=True))
        archive.writestr("x/version", "3\n")
    assert "no file of weights needs that" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}Nr\x00\x00\x00\x10.",  # the memo's place 2^28
        b"\x80\x02}p300000000\n.",
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x10}.",  # a frame of 2^60 bytes
        b"\x80\x04\x8e\x00\x00\x00\x00\x00\x00\x00\x10}.",  # bytes
        b"\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x10}.",  # text
        b"\x80\x02\x8b\x00\x00\x00\x10}.",  # a number
        b"\x80\x02I" + b"9" * 5000 + b"\n.",
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"\x80\x02" + b"]" + b"]a" * 10_000 + b".",
        b"\x80\x02t.",
        b"\x80\x02h\x07.",
        b"\x80\x02N0000.",
        b"\x80\x02ccollections\nOrderedDict\n)R}b.",
    ],
)
def test_pickles_that_claim_much(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(data)
    try:
        assert load_checkpoint(tmp_path / "x.pkl") == {}
    except CheckpointError:
        refusal(tmp_path / "x.pkl")


def test_an_archive_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}, protocol=2))
        with archive.open("x/data/0", "w") as entry:
            for _ in range(100):
                entry.write(bytes(2**20))
    assert "packed into" in refusal(tmp_path / "x.pt")


def changed_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Change the pickle in an archive of torch's."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            assert not name.endswith("data.pkl") or old in data
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("elements", [5, 10**6, 2**31 - 1])
def test_a_tensor_larger_than_its_bytes(tmp_path: Path, elements: int) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "x.pt")
    changed_pickle(tmp_path / "x.pt", b"K\x04", b"J" + struct.pack("<i", elements))
    assert "tensor" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("code", ["bytearray", "FloatTensor"])
def test_gigabytes_without_a_byte_in_the_file(tmp_path: Path, code: str) -> None:
    module = "torch" if code == "FloatTensor" else "builtins"
    torch.save({"a": torch.zeros(4)}, tmp_path / "x.pt")
    call = f"c{module}\n{code}\n".encode() + b"J\x00\x00\x00\x40\x85R"
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}X\x01\x00\x00\x00a" + call + b"s.")
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")
    assert "no file of weights needs that" in refusal(tmp_path / "x.pt")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def often(made: bytes, arguments: bytes) -> bytes:
    """A list of 20,000 results of one function, called with one object made before (`arguments` takes it from place 1)."""
    return made + b"q\x01\x85" + b"](" + (b"h\x02" + arguments + b"R") * 20_000 + b"e\x86"


LONG_TEXT = text("x" * 100_000)
NUMBERS = b"](" + b"K\x07" * 5000 + b"e"
MAPPING = b"}(" + b"".join(number(key) + b"N" for key in range(5000)) + b"u"
STORAGE = b"(" + text("storage") + name("torch", "LongStorage") + text("0") + text("cpu") + b"K\x01tQ"
EXPANDED = name("torch._utils", "_rebuild_tensor_v2") + b"(" + STORAGE + b"K\x00" + number(2**29) + b"\x85K\x00\x85\x89}tR"
TYPED = name("torch._tensor", "_rebuild_from_type_v2") + b"("

CALLS = {
    "bytes of one text": name("_codecs", "encode") + b"q\x02" + often(LONG_TEXT, b"h\x01" + text("latin1") + b"\x86"),
    "sets of one list": name("builtins", "set") + b"q\x02" + often(NUMBERS, b"h\x01\x85"),
    "copies of one mapping": name("collections", "OrderedDict") + b"q\x02" + often(MAPPING, b"h\x01\x85"),
    "letters of one text": name("collections", "Counter") + b"q\x02" + often(LONG_TEXT, b"h\x01\x85"),
    "a code that is longer": name("_codecs", "encode") + text("x") + text("hex") + b"\x86R",
    "zeros": name("builtins", "bytearray") + number(2**32) + b"\x85R",
    "zeros by a list of arguments": name("builtins", "bytearray") + b"]" + number(2**32) + b"aR",
    "zeros by a tensor": name("builtins", "bytearray") + EXPANDED + b"\x85R",
    "zeros by a detour": TYPED + name("builtins", "bytearray") * 2 + number(2**32) + b"\x85}tR",
    "a tensor of a list": name("torch", "FloatTensor") + NUMBERS + b"\x85R",
    "a new tensor": name("torch", "FloatTensor") + number(2**32) + b"\x85\x81",
    "a copy of an expanded tensor": name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")
    + b"("
    + EXPANDED
    + name("torch", "float64")
    + text("cpu")
    + b"\x89tR",
    "a tensor that grows": EXPANDED + b"(" + STORAGE + b"K\x00" + number(2**32) + b"\x85K\x01\x85tb",
    "numbers of a tensor": name("builtins", "set") + EXPANDED + b"\x85R",
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_that_copy_more_than_the_file_has(tmp_path: Path, case: str) -> None:
    """Each would take gigabytes or minutes, of a file of at most a few hundred kilobytes."""
    data = b"\x80\x02" + CALLS[case] + b"."
    (tmp_path / "x.pkl").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/data/0", bytes(8))
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")
    for suffix in ("pkl", "pt"):
        assert "no file of weights needs that" in refusal(tmp_path / f"x.{suffix}")


def test_what_torch_saves_besides_tensors_is_read(tmp_path: Path) -> None:
    note: Any = torch.ones(3)
    note.note = "a tensor with an attribute"
    contents = {
        "counter": collections.Counter("abca"),
        "set": {1, 2},
        "bytes": b"abc" * 1000,
        "bytearray": bytearray(b"abc" * 1000),
        "complex": 1j,
        "size": torch.Size([2, 3]),
        "type": torch.float16,
        "device": torch.device("cpu"),
        "text": "\u00e4" * 5000,
        "tensor": note,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "state": torch.nn.BatchNorm2d(3).state_dict(),
    }
    for save in (save_zip, save_legacy):
        save(contents, tmp_path / "x.pt")
        found = load_checkpoint(tmp_path / "x.pt")
        assert {key: found[key] for key in list(contents)[:9]} == {key: contents[key] for key in list(contents)[:9]}
        assert torch.equal(found["tensor"], torch.ones(3)) and found["state"].keys() == contents["state"].keys()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program_is_called_so(tmp_path: Path) -> None:
    script = torch.jit.script(torch.nn.Linear(2, 2))
    script.save(str(tmp_path / "x.pt"))
    assert "a TorchScript program in place of a state dict" in refusal(tmp_path / "x.pt")


def test_expanded_tensors_count_as_what_they_claim(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "x.pt")
    assert "tensors of 4000000000000 bytes" in refusal(tmp_path / "x.pt")
    shared = torch.zeros(1000)
    torch.save({"a": shared, "b": shared[::2], "c": shared.view(10, 100).t(), "d": torch.zeros(1).expand(5)}, tmp_path / "y.pt")
    assert load_checkpoint(tmp_path / "y.pt")["c"].shape == (100, 10)  # ordinary sharing is


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.eye(3).to_sparse(), "a sparse or nested tensor, 'model.a'"),
        (lambda: torch.eye(3).to_sparse_csr(), "a sparse or nested tensor, 'model.a'"),
        (lambda: torch.empty(3, device="meta"), "a tensor without values, 'model.a'"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8), "a quantised tensor, 'model.a'"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "a sparse or nested tensor, 'model.a'"),
    ],
)
def test_tensors_that_are_no_weights(tmp_path: Path, make: Callable[[], torch.Tensor], message: str) -> None:
    torch.save({"model": {"a": make()}}, tmp_path / "x.pt")
    assert message in refusal(tmp_path / "x.pt")


def write_safetensors(path: Path, header: Any, data: bytes = b"", size: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + data)
    return path


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": ONE}, 10**15),
        ({"a": ONE}, 2**63),
        ({"a": ONE}, 5),
        ({"a": ONE, "b": ONE}, None),
        ({"a": ONE | {"shape": [10**15]}}, None),
        ({"a": ONE | {"shape": [-1]}}, None),
        ({"a": ONE | {"dtype": "F31"}}, None),
        ({"a": ONE | {"data_offsets": [0, 10**15]}}, None),
        (b"[" * 100_000, None),
        (b"{}", None),
    ],
)
def test_lists_of_safetensors(tmp_path: Path, header: Any, size: int | None) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", header, bytes(4), size)
    assert "is not a safetensors file" in refusal(path)


def test_a_million_tensors(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = write_safetensors(tmp_path / "x.safetensors", {str(number): empty for number in range(MAX_TENSORS + 1)})
    assert f"or {MAX_TENSORS} tensors" in refusal(path)


def test_pipes_devices_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.pt")
        assert "not a regular file" in refusal(tmp_path / "pipe.pt")
        (tmp_path / "link.safetensors").symlink_to("/dev/zero")
        assert "not a regular file" in refusal(tmp_path / "link.safetensors")
    (tmp_path / "folder.pt").mkdir()
    assert "directory" in refusal(tmp_path / "folder.pt").lower()
    with pytest.raises(CheckpointError, match="null byte"):
        load_checkpoint("a\0b")


def test_what_trainings_write_is_far_below_the_bounds(tmp_path: Path) -> None:
    contents = {
        "names": [f"class {number}" for number in range(21_841)],
        "random": [(3, tuple(range(625)), None)] * 64,
        "state": collections.OrderedDict((f"layer{number}.weight", torch.zeros(2)) for number in range(300)),
        "deep": nested(MAX_DEPTH // 2, lambda value: {"a": value}),
    }
    for save in (save_zip, save_legacy):
        save(contents, tmp_path / "x.pt")
        assert load_checkpoint(tmp_path / "x.pt")["names"] == contents["names"]
    save_pickle({"a": [np.ones(3, np.float32)] * 1000, "n": contents["names"]}, tmp_path / "x.pt")
    assert len(load_checkpoint(tmp_path / "x.pkl")["a"]) == 1000


LIMITED = """
import resource, sys
from backbones import load_checkpoint
from backbones.errors import CheckpointError
resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        load_checkpoint(path)
        print("read", path)
    except CheckpointError as error:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its memory is measured as Linux does")
def test_bombs_take_little_memory(tmp_path: Path) -> None:
    """In a process of its own, with a limit: a file of a few hundred bytes or kilobytes costs less than 300 MB."""
    files = []
    for number, data in enumerate(
        (tuple_tower(28, as_key=False), tuple_tower(28, as_key=True), b"\x80\x02}Nr\x00\x00\x00\x10.")
    ):
        files.append(tmp_path / f"{number}.pkl")
        files[-1].write_bytes(data)
    for name, make in CONTENTS.items():
        if name != "a long text often":
            files.append(tmp_path / f"{name}.pt")
            torch.save(make(), files[-1])
            files.append(tmp_path / f"{name}.pkl")
            files[-1].write_bytes(pickle.dumps(make(), protocol=4))
    command = [sys.executable, "-c", LIMITED, *map(str, files)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "read" not in result.stdout and int(result.stdout) < 300, result.stdout


def test_the_bounds_stand_in_the_message(tmp_path: Path) -> None:
    torch.save({"a": doubled(40, list)}, tmp_path / "x.pt")
    assert f"more than {MAX_OBJECTS} objects" in refusal(tmp_path / "x.pt")
    assert isinstance(pickle.load(io.BytesIO(pickle.dumps(1))), int)
