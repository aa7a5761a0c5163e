"""Features and labels from the files of other programs, the same numbers whatever the kind of file."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from quantjax.data import read_features, read_labels

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3) / 8
LABELS = np.array([2, 0, 1, 2])


def write(path, features=FEATURES, labels=LABELS):
    """Entries "features" and "labels" in a file of the kind that the suffix says; .npy holds the features alone."""
    kind = path.suffix
    if kind == ".npy":
        np.save(path, features)
    elif kind == ".npz":
        np.savez(path, features=features, labels=labels)
    elif kind == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"features": features, "labels": labels}, path)
    elif kind in (".pt", ".PTH"):
        torch = pytest.importorskip("torch", reason="torch is not installed")
        torch.save({"features": torch.from_numpy(features), "labels": torch.from_numpy(labels), "epoch": 3}, path)
    elif kind == ".h5":
        h5py = pytest.importorskip("h5py", reason="h5py is not installed")
        with h5py.File(path, "w") as file:
            file["features"], file["labels"] = features, labels
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"features": features.tolist(), "labels": labels}), path)
    return path


KINDS = (".npy", ".npz", ".safetensors", ".pt", ".PTH", ".h5", ".parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_numbers(tmp_path, kind):
    file = write(tmp_path / f"a{kind}")
    np.testing.assert_array_equal(read_features(file), FEATURES)
    if kind != ".npy":
        np.testing.assert_array_equal(read_features(file, "features"), FEATURES)
        np.testing.assert_array_equal(read_labels(file), LABELS)
        with pytest.raises(ValueError, match=rf"a{kind} holds no 'nothing', only .*features.*labels"):
            read_features(file, "nothing")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_named(tmp_path, kind):
    file = write(tmp_path / f"a{kind}")
    file.write_bytes(file.read_bytes()[:30])
    with pytest.raises(ValueError, match=rf"a{kind} is damaged or no {kind.lower()} file"):
        read_features(file)


def test_parquet_columns_of_numbers_are_a_matrix(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    columns = {f"f{k}": FEATURES[:, k] for k in range(3)}
    parquet.write_table(pyarrow.table({"label": LABELS, **columns, "name": list("abcd")}), tmp_path / "a.parquet")
    np.testing.assert_array_equal(read_features(tmp_path / "a.parquet"), FEATURES)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.parquet", "label"), LABELS)
    for bad, message in (([[1.0], [2.0, 3.0]], "one length, got 1, 2"), ([[1.0], None], "1 rows are empty")):
        parquet.write_table(pyarrow.table({"x": bad}), tmp_path / "b.parquet")
        with pytest.raises(ValueError, match=rf"b\.parquet, 'x', cannot be read \(.*{message}"):
            read_features(tmp_path / "b.parquet", "x")


def test_bfloat16_is_widened(tmp_path):
    import ml_dtypes

    file = write(tmp_path / "a.safetensors", FEATURES.astype(ml_dtypes.bfloat16))
    assert read_features(file).dtype == np.float32
    np.testing.assert_array_equal(read_features(file), FEATURES)  # eighths below 2 are exact
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save(torch.from_numpy(FEATURES).bfloat16(), tmp_path / "a.pt")
    np.testing.assert_array_equal(read_features(tmp_path / "a.pt"), FEATURES)


@pytest.mark.parametrize(("given", "kept"), [("f2", "f4"), ("i8", "f4"), ("f4", "f4"), ("f8", "f8")])
def test_floating_point_keeps_its_digits(tmp_path, given, kept):
    np.save(tmp_path / "a.npy", np.ones((2, 3), given))
    assert read_features(tmp_path / "a.npy").dtype == kept


@pytest.mark.parametrize(
    ("entries", "key", "message"),
    [
        ({"a": FEATURES, "b": FEATURES}, None, r"one array \[N, D\], got a \[4, 3\], b \[4, 3\]; name one with key="),
        ({"a": LABELS}, "a", r"'a', must have shape \[N, D\], got \[4\]"),
        ({"a": FEATURES > 0}, None, "must hold real numbers, got dtype bool"),
        ({"a": FEATURES * 1j}, None, "got dtype complex64"),
        ({"a": np.array([[print]], object)}, None, r"(?i)a\.npz is damaged .*pickle"),
    ],
)
def test_unfit_features_are_named(tmp_path, entries, key, message):
    np.savez(tmp_path / "a.npz", **entries)
    with pytest.raises(ValueError, match=message):
        read_features(tmp_path / "a.npz", key)


def test_a_missing_library_or_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "a.txt").write_text("1 2 3")
    monkeypatch.setattr("importlib.import_module", lambda name: builtins.__import__("nothing_that_is_installed"))
    with pytest.raises(ImportError, match=r"a\.h5 needs h5py: pip install 'quantjax\[hdf5\]'"):
        read_features(tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError, match=r"b\.npy"):
        read_features(tmp_path / "b.npy")
    with pytest.raises(ValueError, match=r"a\.txt must end in one of \.npy, \.npz"):
        read_features(tmp_path / "a.txt")
