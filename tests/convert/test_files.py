import argparse
import builtins
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from quantjax.convert.files import (
    of_file,
    read_metadata,
    read_safetensors,
    read_state_dict,
    write_safetensors,
)


@pytest.fixture
def state():
    return {
        "module.conv1.weight": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        "module.fc.bias": np.ones(2, np.float16),
    }


def assert_read(path, **options):
    given = read_state_dict(path, **options)
    assert set(given) == {"conv1.weight", "fc.bias"}
    np.testing.assert_array_equal(given["conv1.weight"], np.arange(6).reshape(1, 2, 3))
    assert given["fc.bias"].dtype == np.float32


def test_npz_and_safetensors(tmp_path, state):
    np.savez(tmp_path / "a.npz", **state)
    save_file(state, tmp_path / "a.safetensors")
    assert_read(tmp_path / "a.npz")
    assert_read(tmp_path / "a.safetensors")


@pytest.fixture
def tensors(state):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    return {name: torch.from_numpy(array) for name, array in state.items()}


@pytest.mark.parametrize("name", ["a.pt", "a.PT", "a.pth", "a.th", "a.ckpt", "a.pth.tar", "model.best.bin"])
def test_suffixes_of_torch(tmp_path, tensors, name):
    import torch

    torch.save(tensors, tmp_path / name)
    assert_read(tmp_path / name)


def test_suffixes_in_capitals(tmp_path, state):
    np.savez(tmp_path / "a.npz", **state)
    save_file(state, tmp_path / "a.SAFETENSORS")
    assert_read((tmp_path / "a.npz").rename(tmp_path / "a.NPZ"))
    assert_read(tmp_path / "a.SAFETENSORS")


def test_a_choice_between_networks_is_said_and_can_be_made(tmp_path, tensors):
    import torch

    other = {name: tensor + 1 for name, tensor in tensors.items()}
    torch.save({"student": other, "teacher": tensors, "epoch": 3}, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match=r"a\.pt: its weights under 'teacher.module' are read, not student"):
        assert_read(tmp_path / "a.pt")
    assert_read(tmp_path / "a.pt", key="teacher")
    assert read_state_dict(tmp_path / "a.pt", key="student")["fc.bias"].tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"a\.pt: it holds no 'other' .* it holds student, teacher"):
        read_state_dict(tmp_path / "a.pt", key="other")


class Payload:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize(
    ("make", "held"),
    [
        (lambda torch, run: {"args": argparse.Namespace(lr=0.1)}, r"argparse\.Namespace"),
        (lambda torch, run: {"best": np.float64(0.9)}, r"numpy\.\S*multiarray\.scalar"),
        (lambda torch, run: torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        (lambda torch, run: {"a": Path("a")}, r"pathlib\.\w+Path"),
        (lambda torch, run: {"a": Payload(run)}, r"posix\.mkdir"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_an_object_beside_the_arrays_is_named_and_not_made(tmp_path, make, held, zipped):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    torch.save(make(torch, tmp_path / "ran"), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert_held(tmp_path / "a.pt", held)
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_is_named_and_not_run(tmp_path):
    pytest.importorskip("torch", exc_type=ImportError)
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    assert_held(tmp_path / "a.pt", r"posix\.mkdir")
    assert not (tmp_path / "ran").exists()


def assert_held(path, held):
    with pytest.raises(ValueError, match=rf"a\.pt holds an object .*, {held}, and no code .* torch\.save\(") as error:
        read_state_dict(path)
    assert str(error.value).isprintable()
    assert "damaged" not in str(error.value)


def test_bfloat16_and_8_bit_floats_of_safetensors(tmp_path):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from safetensors.torch import save_file as save_tensors

    values = torch.tensor([[1.0, -2.0], [0.5, 448.0]])
    kinds = {"bf16": torch.bfloat16, "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "whole": torch.int16}
    stored = {name: values.to(kind).contiguous() for name, kind in kinds.items()}
    save_tensors(stored, tmp_path / "a.safetensors")
    torch.save(stored, tmp_path / "a.pt")
    for file in ("a.safetensors", "a.pt"):  # the same numbers, as torch says they are
        for name, array in read_state_dict(tmp_path / file).items():
            np.testing.assert_array_equal(array, stored[name].float().numpy())
            assert array.dtype == (np.int16 if name == "whole" else np.float32)


def test_numbers_of_no_known_kind_are_refused(tmp_path):
    head = json.dumps({"a.scale": {"dtype": "F8_E8M0", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"\x7f\x80")
    with pytest.raises(ValueError, match=r"a\.safetensors holds numbers of no known kind, a\.scale \(F8_E8M0\)"):
        read_state_dict(tmp_path / "a.safetensors")


def test_a_tensor_that_is_not_dense_is_refused(tmp_path):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    torch.save({"a.weight": torch.eye(2).to_sparse()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: a\.weight cannot be read as numbers \(it is no dense tensor"):
        read_state_dict(tmp_path / "a.pt")


def test_pickled_arrays_in_npz_are_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="damaged"):
        read_state_dict(tmp_path / "a.npz")


def test_pt_without_torch_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.pt").write_bytes(b"x")
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'quantjax\[torch\]'"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"just some text\n", None], ids=["empty", "text", "truncated"])
def test_broken_files_give_one_clear_error(tmp_path, state, suffix, content):
    if suffix == ".pt":
        torch = pytest.importorskip("torch", exc_type=ImportError)
        torch.save({k: torch.from_numpy(v) for k, v in state.items()}, tmp_path / "whole.pt")
    np.savez(tmp_path / "whole.npz", **state)
    save_file(state, tmp_path / "whole.safetensors")
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match=r"empty \(0 bytes\)" if content == b"" else "damaged or not a"):
        read_state_dict(path)


def test_a_damaged_member_of_a_compressed_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(2000.0))
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        middle = archive.infolist()[0].header_offset + 200
    raw[middle : middle + 200] = bytes(200)
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="damaged"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.pt"])
def test_whatever_damage_ends_in_our_error_that_names_the_file(tmp_path, state, name):
    """Sixty times a few bytes that are others, gone or new; what survives it is read as numbers."""
    path, rng = tmp_path / name, np.random.default_rng(0)
    if name == "a.pt":
        torch = pytest.importorskip("torch", exc_type=ImportError)
        torch.save({"state_dict": {k: torch.from_numpy(v) for k, v in state.items()}, "epoch": 3}, path)
    elif name == "a.npz":
        np.savez(path, **state)
    else:
        save_file(state, path, {"about": "{}"})
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole) - 16, rng.integers(1, 9)):
            damaged[at : at + rng.integers(0, 3)] = rng.bytes(rng.integers(0, 3))
        path.write_bytes(damaged)
        said = what_is_said(path)
        refused += said is not None
        assert said is None or (str(path) in said and said.isprintable())
    assert refused > 10


def what_is_said(path):
    """The error about a damaged file, None when it is read as numbers all the same."""
    try:
        assert all(array.dtype.kind in "fiub" for array in read_state_dict(path).values())
    except ValueError as error:
        return str(error)
    return None


def test_an_error_about_a_file_s_content_names_it_without_control_codes(tmp_path):
    with pytest.raises(ValueError, match=r"^a\.pt: 1 unexpected \(\?\[1mconv\)$"), of_file("a.pt"):
        raise ValueError("1 unexpected (\x1b[1mconv)")


def test_missing_file_wrong_suffix_and_no_arrays(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*a\.npz"):
        read_state_dict(tmp_path / "a.npz")
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"must end in one of \.npz"):
        read_state_dict(tmp_path / "a.h5")
    np.savez(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="holds no arrays"):
        read_state_dict(tmp_path / "a.npz")


def test_trees_survive_a_round_trip(tmp_path, rng):
    tree = {"params": {"stem": {"kernel": rng.normal(size=(3, 2))[:, ::-1]}}, "step": np.int32(4)}
    write_safetensors(tmp_path / "new" / "a.safetensors", tree, {"backbone": "wrn10_1"})
    given = read_safetensors(tmp_path / "new" / "a.safetensors")
    np.testing.assert_array_equal(given["params"]["stem"]["kernel"], tree["params"]["stem"]["kernel"])
    assert given["step"] == 4
    assert read_metadata(tmp_path / "new" / "a.safetensors") == {"backbone": "wrn10_1"}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("read", [read_safetensors, read_state_dict])
def test_a_flipped_bit_in_a_file_of_ours_is_seen(tmp_path, read):
    file = tmp_path / "a.safetensors"
    write_safetensors(file, {"w": np.arange(9.0, dtype=np.float32)})
    read(file)
    content = bytearray(file.read_bytes())
    content[-6] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged .*its arrays are not those that were written"):
        read(file)
