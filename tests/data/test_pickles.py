"""The restricted unpickler: what CIFAR needs is read, everything else is refused without running."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest

from quantjax.data.pickles import read_pickle
from quantjax.data.readers import cifar10


def string(text: bytes) -> bytes:
    """Python 2's str: SHORT_BINSTRING below 256 bytes, else BINSTRING."""
    return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text


def python2_array(rows: int, pixels: bytes) -> bytes:
    """uint8 [rows, 3072] as numpy 1 under Python 2 wrote it, opcode by opcode."""
    empty = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85" + string(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + string(b"|") + b"NNN" + 2 * (b"J" + struct.pack("<i", -1)) + b"K\x00tb"
    shape = b"K" + bytes([rows]) + b"M" + struct.pack("<H", 3072) + b"\x86"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + string(pixels) + b"tb"


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    entries = string(b"batch_label") + string(b"testing batch 1 of 1")
    entries += string(b"data") + python2_array(len(pixels), pixels.tobytes())
    entries += string(b"labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + entries + b"u."


def test_a_python_2_pickle_is_read(tmp_path, rng):
    pixels = rng.integers(0, 256, (2, 3072), dtype=np.uint8)
    (tmp_path / "test_batch").write_bytes(python2_batch(pixels, [3, 7]))

    content = read_pickle(tmp_path / "test_batch")

    assert content[b"batch_label"] == b"testing batch 1 of 1"
    np.testing.assert_array_equal(content[b"data"], pixels)
    source = cifar10(tmp_path, "test")
    assert source[1]["label"] == 7
    # Channel planes: red of row 0, column 1 is number 1, green follows 1024 later, blue 2048.
    assert source[1]["image"][0, 1].tolist() == pixels[1, [1, 1025, 2049]].tolist()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_this_numpy_are_read(tmp_path, rng, protocol):
    value = {b"data": rng.integers(0, 256, (3, 5), dtype=np.uint8), b"names": [b"a", b"b"]}
    if protocol == 5:  # there numpy writes _frombuffer, which is not among what the published files need
        value.pop(b"data")
    (tmp_path / "file").write_bytes(pickle.dumps(value, protocol))

    content = read_pickle(tmp_path / "file")

    assert content[b"names"] == [b"a", b"b"]
    if b"data" in value:
        np.testing.assert_array_equal(content[b"data"], value[b"data"])


class RunsCode:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [(os.mkdir, ("{}",), r"posix\.mkdir"), (eval, ("1 + 1",), r"eval"), (np.load, ("x.npy",), r"numpy\.load")],
)
def test_a_pickle_that_would_execute_code_is_refused(tmp_path, function, arguments, named):
    trace = tmp_path / "executed"
    arguments = tuple(argument.format(trace) for argument in arguments)
    (tmp_path / "evil").write_bytes(pickle.dumps({b"data": RunsCode(function, *arguments)}, protocol=2))

    with pytest.raises(ValueError, match=rf"evil.*{named}.*not executed"):
        read_pickle(tmp_path / "evil")

    assert not trace.exists()


def test_dotted_names_and_persistent_objects_are_refused(tmp_path):
    (tmp_path / "dotted").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    (tmp_path / "persistent").write_bytes(b"\x80\x02U\x01aQ.")

    with pytest.raises(ValueError, match=r"numpy\.ndarray\.tofile"):
        read_pickle(tmp_path / "dotted")
    with pytest.raises(ValueError, match="persistent object"):
        read_pickle(tmp_path / "persistent")


def dtype_(code, state=None):
    """Opcodes of a dtype by its code."""
    state = state or b"(K\x03" + string(b"|") + b"NNN" + 2 * (b"J" + struct.pack("<i", -1)) + b"K\x00tb"
    return b"cnumpy\ndtype\n" + string(code) + b"K\x00K\x01\x87R" + state


START = b"K\x00\x85" + string(b"b")


def array_(shape, dtype, pixels, start=START):
    """Opcodes of an array that starts as numpy starts it, unless said otherwise."""
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + start + b"\x87R"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + string(pixels) + b"tb"


ONE = b"K\x03\x85"  # (3,)
FIELDS = b"(K\x03" + string(b"|") + b"N(K\x01tN" + 2 * (b"J" + struct.pack("<i", -1)) + b"K\x00tb"


@pytest.mark.parametrize(
    ("opcodes", "refused"),
    [
        (array_(ONE, dtype_(b"u1"), b"ab"), r"an array \[3\] of uint8 with 2 bytes"),
        (array_(ONE, dtype_(b"f4"), b"abc"), r"an array \[3\] of float32 with 3 bytes"),
        (array_(b"J\xff\xff\xff\xff\x85", dtype_(b"u1"), b"abc"), "an array that is not of plain numbers"),
        (array_(b"K\x03", dtype_(b"u1"), b"abc"), "an array that is not of plain numbers"),
        (array_(b"(K\x01K\x01K\x01K\x01K\x03t", dtype_(b"u1"), b"abc"), "an array that is not of plain numbers"),
        (array_(ONE, dtype_(b"O8"), b"abc"), "dtype b'O8'"),
        (array_(ONE, dtype_(b"V1"), b"abc"), "dtype b'V1'"),
        (array_(ONE, dtype_(b"u1", FIELDS), b"abc"), "a dtype that is not of plain numbers"),
        (array_(ONE, b"N", b"abc"), "an array that is not of plain numbers"),
        (array_(ONE, dtype_(b"u1"), b"abc", start=b"K\x09\x85" + string(b"b")), r"an array that starts as \(9,\)"),
        (array_(ONE, dtype_(b"u1"), b"abc", start=b"K\x00\x85" + string(b"u8")), "an array that starts as"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R",
            "without bytes",
        ),
        (b"cnumpy\nndarray\nK\x02\x85R", "TypeError"),
        (b"cnumpy\nndarray\n", "part of an array"),
        (b"cnumpy\nndarray\n)\x81", "neither an array nor a plain value"),
        (b"c_codecs\nencode\n" + b"X\x01\x00\x00\x00a" + b"X\x05\x00\x00\x00utf-7" + b"\x86R", "another encoding"),
        (b"]" * 20 + b"a" * 19, "nested more than 8 deep"),
    ],
)
def test_only_arrays_of_numbers_with_their_bytes_are_made(tmp_path, opcodes, refused):
    (tmp_path / "file").write_bytes(b"\x80\x02" + opcodes + b".")
    with pytest.raises(ValueError, match=rf"file .*{refused}"):
        read_pickle(tmp_path / "file")


@pytest.mark.parametrize("code", ["u1", "i8", "f4", "b1"])
def test_arrays_of_numbers_are_made(tmp_path, rng, code):
    wanted = rng.integers(0, 2, (2, 3)).astype(code)
    for array in (wanted, np.asfortranarray(wanted)):
        (tmp_path / "file").write_bytes(pickle.dumps([array], 2))
        [given] = read_pickle(tmp_path / "file")
        np.testing.assert_array_equal(given, wanted)
        assert given.dtype == wanted.dtype
        assert given.flags.writeable


def test_every_truncation_says_so(tmp_path, rng):
    whole = python2_batch(rng.integers(0, 256, (1, 3072), dtype=np.uint8), [1])
    for length in [0, 1, 30, 60, 100, 150, 200, 1000, len(whole) - 1]:
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut is damaged or not a pickle .*download it again"):
            read_pickle(tmp_path / "cut")


def test_text_is_no_pickle(tmp_path):
    (tmp_path / "page").write_text("<html>404 not found</html>")
    with pytest.raises(ValueError, match="page is damaged or not a pickle"):
        read_pickle(tmp_path / "page")
