"""Lists of images: what a line says, where its image is looked for, and one error that names list and line."""

import numpy as np
import pytest

from quantjax.data import open_source
from quantjax.data.image_lists import image_list, read_entries


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("a/1.png 3\n", [(1, "a/1.png", 3)]),
        ("a/1.png -1", [(1, "a/1.png", -1)]),
        ("a.png 0\r\n\n  b.png\t1  \n", [(1, "a.png", 0), (3, "b.png", 1)]),
        ("my cat, 1.png 2\n", [(1, "my cat, 1.png", 2)]),
        ("..a/b..png 0\n", [(1, "..a/b..png", 0)]),  # dots of a name lead nowhere
        ("ä/ö.png 12\n", [(1, "ä/ö.png", 12)]),
    ],
)
def test_a_line_is_a_path_and_a_class(tmp_path, text, entries):
    assert read_entries(write(tmp_path / "list.txt", text)) == entries


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.png 0\nb.png\n", r"list\.txt, line 2: a line must be a path and a class number, .* got 'b\.png'"),
        ("a.png one\n", r"line 1: a line must be .* got 'a\.png one'"),
        ("a.png -2\n", "line 1: a line must be"),
        ("a.png 1.0\n", "line 1: a line must be"),
        ("a.png ٣\n", "line 1: a line must be"),  # a digit, but none of 0-9
        ("a.png 99999999999\n", "line 1: a line must be"),
        ("7\n", "line 1: a line must be"),
        ("a.png 0\n/etc/b.png 0\n", r"list\.txt, line 2: the path must be relative .* got '/etc/b\.png'; give that"),
        ("a/../../b.png 0\n", "line 1: the path must be relative and stay in its folder"),
        ("a\\..\\..\\b.png 0\n", "line 1: the path must be relative"),
        ("C:\\b.png 0\n", "line 1: the path must be relative"),
        ("\n  \n", r"list\.txt lists no image"),
        (b"\xff\xfe\x00 0\n", r"list\.txt is no list of images: it is no UTF-8 text"),
    ],
)
def test_what_is_no_list_is_one_error_with_file_and_line(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        image_list(write(tmp_path / "list.txt", text))


@pytest.fixture
def lists(tmp_path, save):
    """data/ as OpenOOD lays it out, a list of three images."""
    for k in range(3):
        save(f"data/images_classic/set/{k}.png", np.full((4, 6, 3), 10 * k, np.uint8))
    return write(tmp_path / "data/benchmark_imglist/set/test_set.txt", "set/2.png 1\nset/0.png 0\nset/1.png -1\n")


def values(source):
    return [(int(row["image"][0, 0, 0]), row["label"]) for row in (source[i] for i in range(len(source)))]


WANTED = [(20, 1), (0, 0), (10, -1)]  # in the order of the list


def test_images_lie_beside_the_list_under_data_dir_or_as_openood_has_them(tmp_path, lists, save):
    assert values(image_list(lists)) == WANTED
    elsewhere = write(tmp_path / "mine.txt", lists.read_text())
    for data_dir in (tmp_path / "data", tmp_path / "data/images_classic"):
        assert values(image_list(elsewhere, data_dir)) == WANTED
    for k in range(3):
        save(f"set/{k}.png", np.full((4, 6, 3), 100 + k, np.uint8))
    assert values(image_list(elsewhere, tmp_path / "data")) == [(102, 1), (100, 0), (101, -1)]  # its own folder first


def test_missing_images_are_one_error(tmp_path, lists):
    (tmp_path / "data/images_classic/set/1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_set\.txt: 1 of its 3 images .* 'set/1\.png' in line 3"):
        image_list(lists)
    with pytest.raises(FileNotFoundError, match=r"mine\.txt, line 1: there is no image 'set/2\.png' in any of"):
        image_list(write(tmp_path / "mine.txt", lists.read_text()))
    with pytest.raises(FileNotFoundError, match="there is no image"):  # a name that no system takes
        image_list(write(tmp_path / "long.txt", f"{'x' * 5000}.png 0\n"))


def test_a_list_is_a_set_by_its_path(tmp_path, lists):
    assert values(open_source(lists)) == WANTED
    assert values(open_source("benchmark_imglist/set/test_set.txt", tmp_path / "data")) == WANTED
    with pytest.raises(ValueError, match="has no 'train' split, only test"):
        open_source(lists, split="train")


def test_a_list_is_divided_where_one_is_asked_for(tmp_path, save):
    save("a.png", np.zeros((2, 2, 3), np.uint8))
    whole = write(tmp_path / "all.txt", "a.png 0\n" * 10 + "a.png 1\n" * 5)
    parts = [open_source(whole, split=split, divide=True) for split in ("train", "test")]
    assert [np.bincount(part.labels).tolist() for part in parts] == [[8, 4], [2, 1]]


def test_pixels_are_read_as_they_are_stored(tmp_path):
    """As OpenOOD reads them: EXIF turns nothing."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "turned.png", exif=exif)
    assert image_list(write(tmp_path / "list.txt", "turned.png 0"))[0]["image"].shape == (4, 6, 3)
