"""A command as one of several processes: python host_commands.py COMMAND KILL [flags...].

KILL is the number of the process that is killed when it would save its second checkpoint, or "none". Checkpoints come
after every epoch, and at every question to process 0 what its clock says.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

from quantjax.bundled import streets
from quantjax.train import checkpoint, pace, stream


def main(command: str, kill: str, *flags: str) -> int:
    streets.ROWS = {"train": 4, "test": 1}
    pace.CHECKPOINT_SECONDS, stream.HOSTS_AGREE = 0.0, 2
    if kill != "none" and flags[flags.index("--process") + 1] == kill:
        _die_at_the_second_save()
    return importlib.import_module(f"experiments.{command}").main(list(flags))


def _die_at_the_second_save() -> None:
    save, saved = checkpoint.save, []

    def die(*args, **options):
        if saved:
            os.kill(os.getpid(), signal.SIGKILL)
        saved.append(save(*args, **options))

    checkpoint.save = die


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
