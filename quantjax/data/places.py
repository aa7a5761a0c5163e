"""Where a set lies: a published one in one of its folders under data_dir, one of a person's own by its path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from quantjax.data.listing import matching


def root_of(data_dir: str | Path | None) -> Path | None:
    """The folder that holds the published sets, with ~ in place of the home folder spelled out."""
    return None if data_dir is None else Path(data_dir).expanduser()


def find_folder(
    name: str, data_dir: str | Path | None, folders: Sequence[str], markers: Sequence[str], origin: str
) -> Path:
    """The first of the `folders` under data_dir in which one of the globs `markers` matches anything.

    Raises FileNotFoundError, with `origin` as where to get the set, when there is none or data_dir is None; the message
    names all places looked at, and archives that wait to be unpacked.
    """
    root = root_of(data_dir)
    if root is None:
        raise FileNotFoundError(
            f"{name} is not bundled: pass the folder that holds it as data_dir. Get it from {origin}"
        )
    places = [root / folder for folder in folders]
    for place in places:
        if place.is_dir() and any(matching(place, marker) for marker in markers):
            return place
    archives = [file.name for pattern in ("*.tar*", "*.tgz", "*.zip") for file in root.glob(pattern)]
    raise FileNotFoundError(
        f"{name} was not found; looked for {' or '.join(markers)} in {', '.join(map(str, places))}. "
        f"Get it from {origin} and unpack it into {root}"
        + (f" (archives lying there: {', '.join(sorted(archives))})" if archives else "")
    )


def find_path(
    path: str | Path, data_dir: str | Path | None, *, wanted: str, known: Iterable[str], folder: bool = False
) -> Path:
    """What lies at a path: a relative one is looked for under data_dir first, then where the command runs.

    `folder` passes over files. Raises FileNotFoundError when there is nothing: "... is no known `wanted`", with the
    places looked at and the names `known`.
    """
    path, root = Path(path).expanduser(), root_of(data_dir)
    places = [path] if path.is_absolute() or root is None else [root / path, path]
    place = next((place for place in places if (place.is_dir() if folder else place.exists())), None)
    if place is None:
        raise FileNotFoundError(
            f"{path} is no known {wanted} and no {'folder' if folder else 'file or folder'}; looked at "
            f"{', '.join(map(str, places))}. Known names: {', '.join(known)}"
        )
    return place
