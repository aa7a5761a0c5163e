#!/usr/bin/env bash
# tyro: --help keeps the line breaks of a docstring below a field, and joins those of three other ways to document it.
#
# Expected, since a comment above a field and an "Attributes:" entry of two lines come out of --help as one paragraph,
# wrapped anew to the terminal: the same of a docstring of two lines that stands below its field, indented as code is.
# Seen with tyro 1.0.17 on Python 3.11 and 3.12: that one keeps its break, so that help breaks in the middle of a
# sentence; the same text with its second line at the left margin is joined. The break is judged before the indentation
# is taken off, and a line that begins with a space counts as one to be kept apart.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tyro==1.0.17
cat > "$folder/program.py" <<'PROGRAM'
import contextlib
import dataclasses
import io

import tyro


@dataclasses.dataclass
class Below:
    x: int = 0
    """The first line of this field,
    and the second."""


@dataclasses.dataclass
class Margin:
    x: int = 0
    """The first line of this field,
and the second."""


@dataclasses.dataclass
class Above:
    # The first line of this field,
    # and the second.
    x: int = 0


@dataclasses.dataclass
class Attributes:
    """Settings.

    Attributes:
        x: The first line of this field,
            and the second.
    """

    x: int = 0


def joined(settings):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(settings, args=["--help"])
    found = "The first line of this field, and the second." in text.getvalue()
    print(f"{settings.__name__}: {'one paragraph' if found else 'broken where the source is'}")
    return found


others = [joined(settings) for settings in (Margin, Above, Attributes)]
assert others == [True] * 3, "other descriptions are no longer joined: this finding is out of date"
assert not joined(Below), "an indented docstring is joined now: this finding is out of date"
print("as stated: an indented docstring below a field keeps its line breaks")
PROGRAM
COLUMNS=80 "$folder/venv/bin/python" "$folder/program.py"
