"""Names and paths lead to the right reader, and a miss says where it looked."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantjax.data import sources
from quantjax.data.sources import KNOWN, open_source


def put_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


def put_cifar(folder: Path, name: str, key: bytes, value: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    batch = {b"data": np.full((1, 3072), value, np.uint8), key: [value]}
    (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def first(source) -> int:
    """The value of the first pixel."""
    return int(source[0]["image"].flat[0])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("textures", "dtd/images/banded/banded_0002.png"),
        ("textures", "textures/images/banded/banded_0002.png"),
        ("textures", "textures/dtd/images/banded/banded_0002.png"),
        ("places365", "places365/test_subset/Places365_test_00000001.png"),
        ("places365", "places365/test_256/Places365_test_00000001.png"),
        ("places365", "test_256/Places365_test_00000001.png"),
        ("places365", "places365/Places365_test_00000001.png"),
        ("lsun_c", "LSUN/test/1000.png"),
        ("lsun_c", "LSUN_C/test/1000.png"),
        ("lsun_r", "LSUN_resize/1000.png"),
        ("lsun_r", "LSUN_resize/LSUN_resize/1000.png"),
        ("isun", "iSUN/1000.png"),
        ("isun", "iSUN/iSUN_patches/1000.png"),
    ],
)
def test_outlier_sets_are_found_in_their_published_layouts(tmp_path, name, file):
    put_image(tmp_path / file, 77)
    source = open_source(name, tmp_path)
    assert len(source) == 1
    assert first(source) == 77
    with pytest.raises(ValueError, match=f"{name} has no 'train' split"):
        open_source(name, tmp_path, split="train")


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "cifar10", "cifar10/cifar-10-batches-py"])
def test_cifar10_by_name_and_by_path(tmp_path, folder):
    put_cifar(tmp_path / folder, "test_batch", b"labels", 5)
    for k in range(1, 6):
        put_cifar(tmp_path / folder, f"data_batch_{k}", b"labels", k)
    for source in (open_source("cifar10", tmp_path, split="train"), open_source(tmp_path / folder, split="train")):
        assert [source[i]["label"] for i in range(5)] == [1, 2, 3, 4, 5]
    assert first(open_source("cifar10", tmp_path)) == 5


def test_cifar100_by_name_and_by_path(tmp_path):
    for value, split in enumerate(("train", "test")):
        put_cifar(tmp_path / "cifar-100-python", split, b"fine_labels", value)
    put_cifar(tmp_path / "cifar-100-python", "meta", b"unused", 0)
    assert first(open_source("cifar100", tmp_path, split="test")) == 1
    assert first(open_source("cifar-100-python", tmp_path, split="train")) == 0


@pytest.mark.parametrize("folder", ["svhn", "SVHN", "."])
def test_svhn_by_name(tmp_path, folder):
    import scipy.io

    (tmp_path / folder).mkdir(exist_ok=True)
    content = {"X": np.full((32, 32, 3, 2), 9, np.uint8), "y": np.array([[10], [4]])}
    scipy.io.savemat(tmp_path / folder / "test_32x32.mat", content)
    assert open_source("svhn", tmp_path)[0]["label"] == 0
    assert open_source(tmp_path / folder)[1]["label"] == 4
    with pytest.raises(FileNotFoundError, match=r"train_32x32\.mat"):
        open_source("svhn", tmp_path, split="train")


def test_any_other_folder_by_path_or_by_name(tmp_path):
    put_image(tmp_path / "street_letters" / "0.png", 3)
    assert first(open_source("street_letters", tmp_path)) == 3
    assert first(open_source(tmp_path / "street_letters")) == 3
    with pytest.raises(ValueError, match=r"no 'train' split.*train/ and test/"):
        open_source("street_letters", tmp_path, split="train")


def test_folders_with_splits(tmp_path):
    put_image(tmp_path / "mine" / "train" / "cat" / "0.png", 1)
    put_image(tmp_path / "mine" / "test" / "cat" / "0.png", 2)
    assert first(open_source("mine", tmp_path, split="train")) == 1
    assert first(open_source("mine", tmp_path, split="test")) == 2


def test_npz_by_path(tmp_path):
    np.savez(tmp_path / "mine.npz", images=np.full((2, 4, 4), 8, np.uint8), labels=[1, 0])
    assert first(open_source(tmp_path / "mine.npz")) == 8
    assert open_source("mine.npz", tmp_path)[0]["label"] == 1
    with pytest.raises(ValueError, match=r"mine\.npz.*train_images"):
        open_source("mine.npz", tmp_path, split="train")


@pytest.mark.parametrize("name", list(KNOWN))
def test_a_missing_set_names_where_it_looked_and_where_to_get_it(tmp_path, name):
    (tmp_path / "some.tar.gz").write_text("")
    with pytest.raises(FileNotFoundError) as caught:
        open_source(name, tmp_path)
    message = str(caught.value)
    assert all(str(tmp_path / folder) in message for folder in KNOWN[name].folders)
    assert KNOWN[name].origin in message
    assert "some.tar.gz" in message
    with pytest.raises(FileNotFoundError, match=rf"{name} is not bundled: pass .* data_dir"):
        open_source(name)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"cifra10.*looked at {tmp_path}/cifra10.*cifar10, .*digits"):
        open_source("cifra10", tmp_path)
    with pytest.raises(ValueError, match="split must be one of train, test; got 'val'"):
        open_source("digits", split="val")
    (tmp_path / "notes.doc").write_text("")
    with pytest.raises(ValueError, match=r"notes\.doc must be a folder of images, a list .*\.txt\) or an \.npz"):
        open_source("notes.doc", tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "void").mkdir()
    with pytest.raises(ValueError, match="void holds no image"):
        open_source("void", tmp_path)


def test_importing_the_room_is_light():
    code = (
        "import sys; from quantjax.bundled import images as bundled; from quantjax.data import arrays, sources;"
        "heavy = {'jax', 'PIL', 'scipy', 'sklearn', 'matplotlib', 'grain', 'tensorflow_datasets'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(sources.__file__).parents[2], check=True
    )
    assert run.stdout.strip() == ""
