"""Pickles are read without running them."""

import collections
import io
import pickle
import random

import numpy as np
import pytest
import torch

from backbones.errors import CheckpointError
from backbones.weights.files import load_checkpoint


class Payload:
    """What an attacker pickles."""

    def __init__(self, function, *arguments):
        self.made_of = function, arguments

    def __reduce__(self):
        return self.made_of


def write(path, contents, protocol=2):
    path.write_bytes(pickle.dumps(contents, protocol=protocol))
    return path


def arrays():
    return collections.OrderedDict(
        a=np.arange(6, dtype=np.float32).reshape(2, 3),
        b=np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
        c=np.float64(1.5),
        d=np.int64(7),
        e={"nested": [np.ones((), np.float16), ("text", 3, None, True)]},
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_in_containers(tmp_path, protocol):
    read = load_checkpoint(write(tmp_path / "x.pkl", arrays(), protocol))
    np.testing.assert_array_equal(read["a"], arrays()["a"])
    np.testing.assert_array_equal(read["b"], arrays()["b"])
    assert (read["c"], read["d"], read["e"]["nested"][1]) == (1.5, 7, ("text", 3, None, True))
    assert read["e"]["nested"][0].dtype == np.float16


@pytest.mark.parametrize("old", [True, False])
def test_both_homes_of_numpy(tmp_path, old):
    data = pickle.dumps({"a": np.ones(3, np.float32)}, protocol=2)
    names = (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    ours, other = names if old else reversed(names)
    data = data.replace(ours, other)
    (tmp_path / "x.pkl").write_bytes(data)
    assert load_checkpoint(tmp_path / "x.pkl")["a"].tolist() == [1, 1, 1]


def test_python_2(tmp_path):
    """There bytes and text are one type: array data and keys are strings, to be read as latin1."""
    data = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04"
        b"(K\x01K\x02\x85cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
        b"tb\x89U\x08\x00\x00\x80\xbf\x00\x00\x80?tbs."
    )
    (tmp_path / "x.pkl").write_bytes(data)
    assert load_checkpoint(tmp_path / "x.pkl")["a"].tolist() == [-1, 1]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (lambda mark: Payload(__import__("os").system, f"touch {mark}"), "system"),
        (lambda mark: Payload(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (lambda mark: Payload(getattr, "", "join"), "getattr"),
        (lambda mark: Payload(np.load, str(mark)), "load"),
        (lambda mark: torch.nn.Linear, "Linear"),
        (lambda mark: torch.ones(2), "torch"),
    ],
    ids=["os.system", "eval", "getattr", "numpy.load", "class", "tensor"],
)
def test_code_is_refused(tmp_path, payload, name, protocol):
    mark = tmp_path / "mark"
    path = write(tmp_path / "x.pkl", {"conv1_w": np.ones(2), "evil": payload(mark)}, protocol)
    with pytest.raises(CheckpointError, match=f"{name}.* which could run code, so it is not read"):
        load_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02c_codecs\nencode\nX\x04\x00\x00\x00aaaaX\x03\x00\x00\x00zip\x86R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nccollections\nOrderedDict\nK\x00\x85U\x01b\x87R.",
        b"\x80\x02X\x01\x00\x00\x00aQ.",
        pickle.dumps(np.array([print], dtype=object), protocol=2),
    ],
    ids=["codec", "array class", "persistent id", "object array"],
)
def test_misuse_of_admitted_names_is_refused(tmp_path, data):
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(CheckpointError, match="could run code|another code than latin1"):
        load_checkpoint(tmp_path / "x.pkl")


def test_damage_is_one_clear_line(tmp_path):
    whole = pickle.dumps({"conv1_w": np.arange(50, dtype=np.float32), "names": ["a", "b"]}, protocol=2)
    damaged = [whole[:size] for size in range(1, len(whole), 7)]
    chance = random.Random(0)
    for _ in range(300):
        changed = bytearray(whole)
        changed[chance.randrange(1, len(whole))] = chance.randrange(256)
        damaged.append(bytes(changed))
    path = tmp_path / "x.pkl"
    for data in damaged:
        path.write_bytes(data)
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saved_under_this_name_is_read_too(tmp_path, zipped):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pkl", _use_new_zipfile_serialization=zipped)
    assert load_checkpoint(tmp_path / "x.pkl")["a"].tolist() == [1, 1]


def test_a_pickle_of_something_else(tmp_path):
    with pytest.raises(CheckpointError, match="holds a list, not a checkpoint"):
        load_checkpoint(write(tmp_path / "x.pkl", [1, 2]))
    assert isinstance(pickle.load(io.BytesIO(pickle.dumps(1))), int)
