import io
import os
import sys
from pathlib import Path

import pytest

from experiments.inputs import open_inputs


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "notes.txt", ".hidden.png", "sub/c.png", "sub/deep/d.png", "odd[1].png", "e.jp2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(*arguments, output=None):
    return [one.as_posix() if isinstance(one, Path) else one for one in open_inputs(arguments, output)]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["a.png", "absent.png"], ["a.png", "absent.png"]),
        (["sub"], ["sub/c.png", "sub/deep/d.png"]),
        (["*.png"], ["a.png", "odd[1].png"]),
        (["odd[1].png"], ["odd[1].png"]),  # a file of that name comes before a glob
        (["**/*.png"], ["a.png", "odd[1].png", "sub/c.png", "sub/deep/d.png"]),
        (["s*"], ["sub/c.png", "sub/deep/d.png"]),  # what a shell would make of it
        (["sub/**"], ["sub/c.png", "sub/deep/d.png"]),
        (["[ab].*", "sub/?.png"], ["a.png", "b.jpg", "sub/c.png"]),
    ],
)
def test_files_folders_and_globs(tree, arguments, wanted):
    assert given(*arguments) == wanted
    rooted = [str(tree / argument) for argument in arguments]
    assert given(*rooted) == [(tree / name).as_posix() for name in wanted]


def test_what_looks_like_an_image_and_is_not_read_is_said(tree):
    sentence, *files = given(".", output=tree / "sub")
    assert "1 file looks like an image and is not read (1 .jp2)" in sentence
    assert files == ["a.png", "b.jpg", "odd[1].png"]


@pytest.mark.parametrize("arguments", [["*.webp"], ["sub/*.txt"], ["notes*"]])
def test_what_names_no_image_is_an_error(tree, arguments):
    with pytest.raises(ValueError, match="holds no images"):
        given(*arguments)


def test_a_list_is_read_line_by_line_as_it_is_asked_for(tree, monkeypatch):
    read, write = os.pipe()
    with os.fdopen(read) as stdin, os.fdopen(write, "wb", buffering=0) as writing:
        monkeypatch.setattr(sys, "stdin", stdin)
        files = open_inputs(["b.jpg", "-"])
        assert next(files) == Path("b.jpg")
        writing.write(b"a.png\n")
        assert next(files) == Path("a.png")  # the list has not ended yet
        writing.write(b"\nabsent.png\r\nsub\n*.webp\n")
        writing.close()
        rest = [str(one) for one in files]
    assert rest[:3] == ["absent.png", str(Path("sub/c.png")), str(Path("sub/deep/d.png"))]
    assert "*.webp holds no images" in rest[3]


def test_names_of_any_bytes_are_files(tree, monkeypatch):
    name = b"gr\xfcn.png"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(name + b"\n"), "utf-8"))
    [file] = open_inputs(["-"])
    assert os.fsencode(file) == name


def test_a_list_is_read_once_and_must_be_there(monkeypatch):
    with pytest.raises(ValueError, match="stands there 2 times"):
        open_inputs(["-", "-"])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="closed"):
        list(open_inputs(["-"]))
