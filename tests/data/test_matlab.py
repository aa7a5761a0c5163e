"""Tags of MATLAB files that do not fit are refused before scipy follows them."""

import struct

import numpy as np
import pytest
from scipy.io import savemat

from quantjax.data.matlab import read_mat

NAMES = ("X", "y")


@pytest.fixture
def content(rng):
    return {"X": rng.integers(0, 256, (4, 4, 3, 5), dtype=np.uint8), "y": np.arange(5.0)[:, None], "other": "text"}


@pytest.mark.parametrize("compressed", [True, False])
def test_what_was_saved_is_read(tmp_path, content, compressed):
    file = tmp_path / "a.mat"
    savemat(file, content, do_compression=compressed)
    found = read_mat(file, NAMES)
    assert sorted(found) == ["X", "y"]
    for name in NAMES:
        np.testing.assert_array_equal(found[name], content[name])


def changed(file, place, value):
    data = bytearray(file.read_bytes())
    struct.pack_into("<I", data, place, value)
    file.write_bytes(data)


# of an uncompressed file: header 128, tag of X 8, flags 16, tag of dimensions 8 and four of them, name 8, numbers
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (132, 10**9, "longer than the file"),
        (128, 3, "the element at byte 128 is none"),
        (136, 5, "other tags than flags"),
        (144, 17, "unknown class 17"),
        (144, 0x0809, "no array of real numbers"),
        (144, 4, "no array of real numbers"),
        (160, 40, "has 240 bytes, wanted 2400"),
        (160, 0x80000004, "no array of real numbers"),
        (188, 241, "has 241 bytes, wanted 240"),
        (184, 99, "no array of real numbers"),
    ],
)
def test_a_tag_that_does_not_fit(tmp_path, content, place, value, message):
    file = tmp_path / "a.mat"
    savemat(file, {"X": content["X"], "y": content["y"]})
    changed(file, place, value)
    with pytest.raises(ValueError, match=message) as error:
        read_mat(file, NAMES)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("names", [("Z",), ("X", "Z")])
def test_a_variable_that_is_not_there(tmp_path, content, names):
    savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=r"a\.mat is not"):
        read_mat(tmp_path / "a.mat", names)


@pytest.mark.parametrize("data", [b"", b"x" * 300, b"MATLAB 5.0" + b" " * 114 + b"\x00\x01IM" + b"\x0e\0\0\0"])
def test_no_matlab_file(tmp_path, data):
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.mat is not"):
        read_mat(tmp_path / "a.mat", NAMES)
