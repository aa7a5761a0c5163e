"""The installed commands are the programs that `python -m` starts, beside an `experiments` of the user's own too."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

COMMANDS = {f"quantjax-{name}": f"experiments.{name}" for name in ("quantod", "uem", "predict", "evaluate", "tables")}


def test_every_command_is_installed():
    found = {entry.name: entry.value for entry in entry_points(group="console_scripts") if entry.name in COMMANDS}
    assert found == {name: f"{module}:main" for name, module in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_starts_where_experiments_is_something_else(tmp_path, name):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise RuntimeError('not this one')")
    command = Path(sys.executable).with_name(name)
    shown = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "--" in shown.stdout
