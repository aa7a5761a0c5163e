"""A path to a folder that Orbax reads, whatever the folder is called.

Orbax 0.12 looks for its files with a glob of the whole path, in which brackets, stars and question marks mean something
else than themselves, and hands it to TensorStore as a URI, in which backslashes and "gs://" do. A link to the folder
has a name without any of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MEANINGFUL = frozenset("[]*?") | (frozenset("\\:") if os.sep == "/" else frozenset())


def is_plain(path: Path) -> bool:
    """Whether every character of the path means itself to Orbax."""
    with suppress(UnicodeEncodeError):
        return bool(str(path).encode()) and not MEANINGFUL & set(str(path))
    return False  # bytes that are no UTF-8


@contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """Context: `folder`, which is absolute, itself or by way of a link that ends with the block.

    Raises ValueError where links cannot be made (Windows without the developer mode), or not under a plain name.
    """
    if is_plain(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="quantjax-", ignore_cleanup_errors=True) as place:
        link = Path(place).resolve() / "checkpoints"
        if not is_plain(link):
            raise ValueError(_refused(folder, f"the folder for temporary files, {place}, has one as well"))
        try:
            link.symlink_to(folder, target_is_directory=True)
        except (OSError, NotImplementedError) as error:
            raise ValueError(_refused(folder, f"no link to it can be made ({error})")) from error
        yield link


def _refused(folder: Path, why: str) -> str:
    return (
        f"checkpoints cannot be kept in {folder}: Orbax misreads some characters of that path, of "
        f"{' '.join(sorted(MEANINGFUL))} or no UTF-8, and {why}; choose a folder without them"
    )
