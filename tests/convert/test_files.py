import builtins
import os
import pickle
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from quantjax.convert.files import (
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


@pytest.mark.parametrize("wrapper", [None, "state_dict", "cls_state_dict", "nfs_state_dict"])
def test_pt_with_and_without_a_wrapper(tmp_path, state, wrapper):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    tensors = {k: torch.from_numpy(v) for k, v in state.items()} | {}
    torch.save({wrapper: tensors, "epoch": 3} if wrapper else tensors, tmp_path / "a.pt")
    if wrapper != "nfs_state_dict":
        return assert_read(tmp_path / "a.pt")
    with pytest.raises(ValueError, match="nfs_state_dict"):
        read_state_dict(tmp_path / "a.pt")
    assert_read(tmp_path / "a.pt", wrapper=wrapper)
    with pytest.raises(ValueError, match="holds no 'other'"):
        read_state_dict(tmp_path / "a.pt", wrapper="other")
    return None


def test_pt_with_code_is_not_run(tmp_path):
    pytest.importorskip("torch", exc_type=ImportError)

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "a.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match=r"damaged or not a \.pt file"):
        read_state_dict(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


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
