"""The detector that a command is told to use: in the folder of a finished run, or in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_detector(folder: Path, flag: str) -> Any:
    """The detector of a run's folder or of a detector's own folder, JAX started; `flag` is what named the folder.

    Raises FileNotFoundError where there is none, ValueError for a detector of features, which needs no command.
    """
    own = folder if (folder / "detector.json").is_file() else folder / "detector"
    if not folder.is_dir():
        raise FileNotFoundError(f"{flag} must be the folder of a run, {folder} does not exist or is no folder")
    if not (own / "detector.json").is_file():
        raise FileNotFoundError(f"{folder} holds no detector: the run is not finished, or it is another kind of folder")
    from experiments.start import backend
    from quantjax import detector, parallel

    parallel.cores_as_devices()
    backend()
    loaded = detector.load(own)
    if isinstance(loaded, detector.FeatureDetector):
        raise ValueError(f"the detector in {folder} takes features, no images: use it from Python, detector.predict")
    return loaded
