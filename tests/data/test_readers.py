"""Each published layout, written small by hand and read back."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantjax.data import readers
from quantjax.data.arrays import load
from quantjax.data.folders import image_folder
from quantjax.data.readers import TfdsSource
from quantjax.data.sources import SPLITS, open_source

FIXTURES = Path(__file__).parent / "fixtures"


def write_cifar(folder, name, images, labels, key):
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    (folder / name).write_bytes(pickle.dumps({b"data": rows, key: labels}, protocol=2))


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)


def test_cifar10_joins_the_five_batches_in_order(tmp_path, pixels):
    for k in range(5):
        write_cifar(tmp_path, f"data_batch_{k + 1}", pixels[2 * k : 2 * k + 2], [k, 9 - k], b"labels")
    write_cifar(tmp_path, "test_batch", pixels[:3], [1, 2, 3], b"labels")

    train, test = readers.cifar10(tmp_path, "train"), readers.cifar10(tmp_path, "test")

    np.testing.assert_array_equal(train.images, pixels)
    assert train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert len(test) == 3
    assert test[2]["label"] == 3
    np.testing.assert_array_equal(test[2]["image"], pixels[2])


def test_cifar100_reads_fine_labels(tmp_path, pixels):
    write_cifar(tmp_path, "train", pixels, list(range(90, 100)), b"fine_labels")
    source = readers.cifar100(tmp_path, "train")
    assert source.labels.tolist() == list(range(90, 100))
    np.testing.assert_array_equal(source.images, pixels)


def test_a_pickle_of_something_else_is_named(tmp_path, pixels):
    write_cifar(tmp_path, "test_batch", pixels, [0] * 10, b"coarse_labels")
    with pytest.raises(ValueError, match=r"test_batch has no entries 'data' and 'labels'"):
        readers.cifar10(tmp_path, "test")
    write_cifar(tmp_path, "test_batch", pixels[:, :16], [0] * 10, b"labels")
    with pytest.raises(ValueError, match=r"test_batch must hold data uint8 \[N, 3072\].* got uint8 \[10, 1536\]"):
        readers.cifar10(tmp_path, "test")


def test_svhn_puts_rows_first_and_calls_ten_zero(tmp_path, pixels):
    import scipy.io

    labels = np.array([[1], [10], [9], [10], [2], [3], [4], [5], [6], [7]], np.uint8)
    scipy.io.savemat(tmp_path / "test_32x32.mat", {"X": pixels.transpose(1, 2, 3, 0), "y": labels})

    source = readers.svhn(tmp_path, "test")

    np.testing.assert_array_equal(source.images, pixels)
    assert source.labels.tolist() == [1, 0, 9, 0, 2, 3, 4, 5, 6, 7]
    content = (tmp_path / "test_32x32.mat").read_bytes()
    (tmp_path / "train_32x32.mat").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"train_32x32\.mat is not SVHN's \.mat .*download it again"):
        readers.svhn(tmp_path, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(600, b" "), r"is a MATLAB 7\.3 file .*save it again .*'-v7'"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, r"not SVHN's \.mat with X and y \(KeyError: 'y'\)"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1]]}, r"must hold X uint8 \[H, W, 3, N\]"),
        ({"X": np.zeros((2, 3072), np.uint8), "y": [[1], [2]]}, r"got uint8 \[2, 3072\] and \[2, 1\]"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": [[1], [2]]}, r"got float64 \[32, 32, 3, 2\]"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": [[1.5], [2]]}, r"y: labels must be whole numbers, got 1\.5"),
    ],
)
def test_an_unfit_matlab_file_is_named(tmp_path, content, message):
    import scipy.io

    file = tmp_path / "test_32x32.mat"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        scipy.io.savemat(file, content)
    with pytest.raises(ValueError, match=rf"test_32x32\.mat.*{message}"):
        readers.svhn(tmp_path, "test")


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def test_class_folders_are_labelled_by_name(tmp_path, pixels):
    save(tmp_path / "zebra" / "1.png", pixels[0])
    save(tmp_path / "ant" / "deep" / "2.PNG", pixels[1])
    save(tmp_path / "ant" / "1.png", pixels[2])
    (tmp_path / "empty").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("no image")

    source = image_folder(tmp_path)

    assert source.class_names == ("ant", "zebra")
    assert [source[i]["label"] for i in range(len(source))] == [0, 0, 1]
    for row, k in enumerate((2, 1, 0)):
        np.testing.assert_array_equal(source[row]["image"], pixels[k])


def test_a_flat_folder_has_no_labels(tmp_path, pixels):
    for k in (2, 0, 1):
        save(tmp_path / f"{k}.png", pixels[k])
    (tmp_path / "._0.png").write_text("resource fork")
    source = image_folder(tmp_path)
    assert [source[i]["label"] for i in range(len(source))] == [-1, -1, -1]
    np.testing.assert_array_equal(np.stack([source[i]["image"] for i in range(3)]), pixels[:3])


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "readme.txt").write_text("no image")
    with pytest.raises(ValueError, match=rf"{tmp_path} holds no image"):
        image_folder(tmp_path)


def test_npz_with_and_without_splits(tmp_path, pixels):
    np.savez(tmp_path / "plain.npz", images=pixels[..., 0])
    np.savez(tmp_path / "split.npz", train_images=pixels[:6], train_labels=range(6), test_images=pixels[6:])

    plain = readers.npz(tmp_path / "plain.npz", "test")
    np.testing.assert_array_equal(plain[4]["image"], np.repeat(pixels[4, :, :, :1], 3, -1))
    assert plain.labels.tolist() == [-1] * 10
    train = readers.npz(tmp_path / "split.npz", "train")
    assert train.labels.tolist() == list(range(6))
    np.testing.assert_array_equal(readers.npz(tmp_path / "split.npz", "test").images, pixels[6:])


def labelled(labels):
    return {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.asarray(labels)}


@pytest.mark.parametrize("labels", [[3, 0], [[3], [0]], [3.0, 0.0], np.array([3, 0], np.uint64), [-1, 2]])
def test_whole_numbers_are_labels_whatever_their_type(tmp_path, labels):
    np.savez(tmp_path / "a.npz", **labelled(labels))
    assert readers.npz(tmp_path / "a.npz").labels.tolist() == np.ravel(labels).tolist()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"x": np.zeros(3)}, "no entry 'images'.* only x"),
        ({"images": np.zeros((2, 4, 4, 3))}, r"must be uint8 .* got float64 \[2, 4, 4, 3\]"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": [1]}, "got 1 for 2 images"),
        ({"images": np.array([print], object)}, "pickle"),
        (labelled([0.9, 1]), r"whole numbers, got 0\.9 in row 0"),
        (labelled([0, np.nan]), "whole numbers, got nan in row 1"),
        (labelled([0, np.inf]), "whole numbers, got inf in row 1"),
        (labelled([0, 2**32 + 1]), r"must lie in -1\.\.2147483647, got 0\.\.4294967297"),
        (labelled([0, -2]), r"must lie in -1\.\.2147483647, got -2\.\.0"),
        (labelled(np.array([0, 2**63], np.uint64)), "must lie in -1"),
        (labelled([True, False]), "must be integers, got dtype bool; number the classes"),
        (labelled(["cat", "dog"]), "must be integers, got dtype <U3; number the classes with np.unique"),
        (labelled([[0, 1], [1, 0]]), r"class numbers \[N\], got \[2, 2\]; of one-hot rows take \.argmax\(1\)"),
        (labelled([[[0]], [[1]]]), r"must have shape \[N\], got \[2, 1, 1\]"),
        (labelled([0, 1j]), "must be integers, got dtype complex"),
    ],
)
def test_an_unfit_npz_is_named(tmp_path, entries, message):
    np.savez(tmp_path / "bad.npz", **entries)
    with pytest.raises(ValueError, match=rf"(?i)bad\.npz cannot be read as images: .*{message}"):
        readers.npz(tmp_path / "bad.npz")


def test_a_truncated_npz_is_named(tmp_path, pixels):
    np.savez(tmp_path / "whole.npz", images=pixels)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.npz cannot be read as images"):
        readers.npz(tmp_path / "cut.npz")


READ_WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder

class WithoutTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "tensorflow" else super().find_spec(name, path, target)

sys.meta_path = [WithoutTensorFlow if finder is PathFinder else finder for finder in sys.meta_path]
try:
    import tensorflow
except ModuleNotFoundError:
    print("no tensorflow")

import numpy as np
from sklearn.datasets import load_digits
from quantjax.data.arrays import load
from quantjax.data.sources import open_source

data_dir = sys.argv[1]
source = open_source("tfds:digits_small", data_dir, split="test")
images, labels = load(source, size=8)
digits = load_digits()
print(len(source), (images == (digits.images[:40, :, :, None] * 15)).all(), (labels == digits.target[:40]).all())
for name, split in (("digits_small", "train"), ("nowhere", "test"), ("mnist", "test")):
    try:
        open_source(f"tfds:{name}", data_dir, split=split)
    except (ValueError, FileNotFoundError) as error:
        print(type(error).__name__, error)
print("tensorflow" in sys.modules)
"""


def test_a_prepared_tfds_set_is_read_without_tensorflow(tmp_path):
    home = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(readers.__file__).parents[2])}
    command = [sys.executable, "-c", READ_WITHOUT_TENSORFLOW, str(FIXTURES)]
    run = subprocess.run(command, capture_output=True, text=True, env=home, timeout=120)

    assert run.returncode == 0, run.stderr
    blocked, read, split, unknown, unprepared, loaded = run.stdout.strip().splitlines()
    assert blocked == "no tensorflow"
    assert read == "40 True True"
    assert split == "ValueError tfds:digits_small has no split 'train', only test"
    for line, name in ((unknown, "nowhere"), (unprepared, "mnist")):
        assert line.startswith(f"FileNotFoundError TFDS has no array_record preparation of '{name}'")
        assert f"tfds build {name} --file_format=array_record" in line
    assert loaded == "False"


def prepared(folder: Path, *splits: str) -> Path:
    """The fixture's set under other names of splits, the same forty digits in each."""
    for file in (FIXTURES / "digits_small").rglob("*"):
        (folder / file.relative_to(FIXTURES)).parent.mkdir(parents=True, exist_ok=True)
        if file.name in ("features.json", "dataset_info.json"):
            shutil.copy(file, folder / file.relative_to(FIXTURES))
    version = folder / "digits_small" / "1.0.0"
    info = json.loads((version / "dataset_info.json").read_text())
    info["splits"] = [{**info["splits"][0], "name": split} for split in splits]
    (version / "dataset_info.json").write_text(json.dumps(info))
    records = FIXTURES / "digits_small" / "1.0.0" / "digits_small-test.array_record-00000-of-00001"
    for split in splits:
        shutil.copy(records, version / records.name.replace("-test.", f"-{split}."))
    return folder


@pytest.mark.parametrize("split", ["train", "test", "validation"])
def test_a_tfds_set_of_one_split_is_divided_by_class(tmp_path, split):
    """Of 3 to 6 rows of each of ten digits one is a fifth, rounded: 10 rows to test on, 30 to train on."""
    folder = prepared(tmp_path, split)
    train, test = (load(open_source("tfds:digits_small", folder, s, divide=True), size=8) for s in SPLITS)
    assert sorted(test[1]) == list(range(10))
    assert len(train[1]) == 30
    whole = load(TfdsSource(readers.tfds("digits_small", folder, split).records), size=8)
    both = np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]])
    want, got = (sorted((int(label), image.tobytes()) for image, label in zip(*s, strict=True)) for s in (whole, both))
    assert got == want
    again = load(open_source("tfds:digits_small", folder, "test", divide=True), size=8)
    np.testing.assert_array_equal(again[0], test[0])


def test_the_validation_rows_of_a_tfds_set_stand_in_for_test_rows(tmp_path):
    folder = prepared(tmp_path, "train", "validation")
    assert [len(open_source("tfds:digits_small", folder, s, divide=True)) for s in SPLITS] == [40, 40]
    with pytest.raises(ValueError, match="has no split 'test', only train, validation"):
        open_source("tfds:digits_small", folder, "test")
    named = prepared(tmp_path / "other", "full")
    with pytest.raises(ValueError, match="has no split 'train', only full"):
        open_source("tfds:digits_small", named, "train", divide=True)
