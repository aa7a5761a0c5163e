"""What the settings of every command share: some flags, and how all are filled in, checked, told apart and named.

What one command alone can be told is in `images.config` and `scenes.config`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from experiments.hosts import Hosts
from experiments.preprocessing import ChannelOrder, Triple

if TYPE_CHECKING:
    import numpy as np

Config = TypeVar("Config")
Value = TypeVar("Value")

# of a flag whose text says what it is where it is not given: --help then says nothing of None
Unset = Annotated[Value | None, tyro.conf.arg(help_behavior_hint="")]

Precision = Literal["float32", "tensorfloat32", "bfloat16"]
NO_SETS = "none"  # for flags that name the sets to evaluate on: thresholds alone, which need inliers alone
# Where a run happens, or whether it may go on: no part of what it computes. Each command adds its own.
PLACE = ("workdir", "data_dir", "run", "resume", "overwrite", "debug", "hosts", "tensorboard")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags of every command; its own stand in `images.config` and `scenes.config`."""

    workdir: Path = Path("runs")
    """Folder of the runs (a folder each) and of what runs share (<workdir>/cache/)."""
    data_dir: Path | None = None
    """Folder that holds the published archives, unpacked."""
    run: Unset[str] = None
    """Name of the run's folder under --workdir. Default: the command, what it runs on, and a hash of the settings."""
    resume: bool = False
    """Continue an unfinished run."""
    overwrite: bool = False
    """Delete the run's folder first; what runs share stays."""
    seed: int = 0
    """Seed of every random draw: initialisation, order, augmentation, dropout, pasting."""
    precision: Unset[Precision] = None
    """Arithmetic of the networks; heads, likelihoods, losses and scores are float32 always. tensorfloat32 is float32
    with the factors of products rounded to 10 bits on GPUs that can, and float32 elsewhere. Default: bfloat16 on an
    accelerator, float32 on a CPU."""
    mean: Unset[Triple] = None
    """What the publisher of the weights subtracts from the channels, in the order the network sees them; numbers above
    1, here or in --deviation, count pixels in 0..255, otherwise in 0..1. Default: what the weights' publishers used."""
    deviation: Triple | None = None
    """What the channels are divided by then; goes with --mean."""
    channel_order: Unset[ChannelOrder] = None
    """Order in which the network sees colours. Default: what the weights were stored with, else rgb."""
    weights_key: Unset[str] = None
    """Which network of the given weights, where a checkpoint holds several: teacher, state_dict_ema, teacher.backbone,
    say. Default: averaged weights before plain ones, teachers before students; what was chosen is printed."""
    tensorboard: bool = False
    """Also write the curves as TensorBoard events (needs the tracking extra)."""
    debug: bool = False
    """Show the traceback of an error instead of one line."""
    hosts: tyro.conf.OmitArgPrefixes[Hosts] = dataclasses.field(default_factory=Hosts)
    """One of several processes, see docs/experiments.md."""


def default_precision(accelerator: bool) -> Precision:
    """What networks compute in unless a flag says otherwise."""
    return "bfloat16" if accelerator else "float32"


def fill(config: Config, **defaults: Any) -> Config:
    """`config` with its None fields replaced."""
    missing = {k: v for k, v in defaults.items() if getattr(config, k) is None}
    return dataclasses.replace(config, **missing)  # type: ignore[type-var]


def values_of(config: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, as they are: what another dataclass with these fields is made of."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def flag(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def check_least(settings: Any, least: Mapping[str, int]) -> None:
    """Raise ValueError unless each field is at least as large as `least` says."""
    from quantjax.checks import check_interval

    for name, low in least.items():
        check_interval(flag(name), getattr(settings, name), low, float("inf"))


def check_seed_and_run(settings: Any) -> None:
    """Raise ValueError unless the seed fits 32 bits and --run, where given, is the name of a folder."""
    from quantjax.checks import check_interval

    check_interval("--seed", settings.seed, 0, 2**32 - 1)
    if settings.run is not None and Path(settings.run).name != settings.run:
        raise ValueError(
            f"--run must be the name of a folder under --workdir, without separators, got {settings.run!r}"
        )


def check_data_dir(settings: Any) -> None:
    """Raise ValueError when --data-dir is given and is no folder, also where no set is read from it."""
    if settings.data_dir is not None and not settings.data_dir.expanduser().is_dir():
        raise ValueError(
            f"--data-dir must be the folder that holds the published sets, {settings.data_dir} is none: correct it, or "
            "leave it out where every set is bundled or given by its path"
        )


def check_choices(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless `given` names at least one of `known`, each once."""
    if not given:
        raise ValueError(f"{flag} must name at least one of {', '.join(known)}; got none")
    for name in given:
        if name not in known:
            raise ValueError(f"{flag} must be of {', '.join(known)}; got {name!r}")
        if list(given).count(name) > 1:
            raise ValueError(f"{flag} must name each once, {name} stands there twice")


def doubted(
    detector: str, auroc: Mapping[str, float], *, training: np.ndarray | None = None, held_out: np.ndarray | None = None
) -> str | None:
    """A sentence that warns of the detector of a method, with the way out; None when nothing speaks against it.

    Arguments as of quantjax.detector.doubts.
    """
    from quantjax.detector import better, doubts

    reasons = doubts(detector, auroc, training=training, held_out=held_out)
    if not reasons:
        return None
    other = better(detector, auroc)
    way_out = "no method did better: give more training images, other weights, or other outliers to compare on"
    if other is not None:
        way_out = f"--detector {other} saves a method that works here (AUROC {100 * auroc[other]:.1f} %)"
    elif not auroc:
        way_out = "choose another method with --detector, or give more training images"
    return f"warning: the saved detector, {detector}, {' and '.join(reasons)}; {way_out}"


def describe(config: Any) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def computed(config: Any, place: Sequence[str]) -> dict[str, Any]:
    """The settings that decide the numbers, as plain JSON values: all but `place` and PLACE."""
    return {k: v for k, v in describe(config).items() if k not in (*PLACE, *place)}


def run_name(given: str | None, prefix: str, identity: Mapping[str, Any]) -> str:
    """The name that --run gives, else <prefix>-<first 8 hexadecimal digits of the hash of what is computed>."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return given or f"{prefix}-{digest}"
