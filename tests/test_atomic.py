"""Folders and files that are replaced: there is no moment without a valid one, and what is there is on the disk."""

import os

import pytest

from quantjax import atomic


def write(folder, text):
    with atomic.replaced_folder(folder, "marker") as temporary:
        (temporary / "marker").write_text(text)


def test_a_folder_is_valid_at_every_moment(tmp_path, monkeypatch):
    folder, renames = tmp_path / "d", []
    write(folder, "old")

    def watched(name):
        real = getattr(os, name)

        def call(*args, **options):
            real(*args, **options)
            renames.append(name)
            assert (folder / "marker").read_text() in ("old", "new")

        return call

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, watched(name))
    write(folder, "new")
    assert (folder / "marker").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_without_an_exchange_in_one_step_the_folder_is_replaced_by_renames(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_swap", lambda one, other: False)
    for text in ("old", "new"):
        write(tmp_path / "d", text)
        assert (tmp_path / "d" / "marker").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_what_takes_the_place_is_on_the_disk_before(tmp_path, monkeypatch):
    events, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("replace"), replace(*paths)))
    atomic.write_text(tmp_path / "a", "x")
    assert events == ["sync", "replace", "sync"]  # the file, its new name, the folder that holds the name


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    atomic.write_text(tmp_path / "a", "old")
    write(tmp_path / "d", "old")
    for context in (atomic.replaced_file(tmp_path / "a"), atomic.replaced_folder(tmp_path / "d", "marker")):
        with pytest.raises(KeyboardInterrupt), context:
            raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {"a", "d"}
    assert (tmp_path / "a").read_text() == (tmp_path / "d" / "marker").read_text() == "old"


class Full(Exception):
    """What a library in another language raises."""


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Full("I/O: No space left on device")])
def test_a_full_disk_is_told_by_the_file_and_leaves_what_was_there(tmp_path, error):
    atomic.write_text(tmp_path / "a", "old")
    write(tmp_path / "d", "old")
    for context in (atomic.replaced_file(tmp_path / "a"), atomic.replaced_folder(tmp_path / "d", "marker")):
        with pytest.raises(OSError, match=r"/[ad] cannot be written, the disk is full") as found, context:
            raise error
        assert found.value.__cause__ is error
    assert {path.name for path in tmp_path.iterdir()} == {"a", "d"}
    assert (tmp_path / "a").read_text() == (tmp_path / "d" / "marker").read_text() == "old"


def test_other_errors_come_through_as_they_are(tmp_path):
    with pytest.raises(PermissionError), atomic.naming(tmp_path):
        raise PermissionError(13, "Permission denied")
