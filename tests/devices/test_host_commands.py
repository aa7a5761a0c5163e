"""Two processes run each command: a killed one ends the other with one error, and the resumed run is that of one."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from programs import start

from experiments.scenes import networks, stages, storage
from experiments.scenes.config import parse, resolve
from quantjax import segmentation
from quantjax.bundled import streets
from quantjax.convert.files import flatten, read_safetensors, write_safetensors
from quantjax.extractors import FEATURE_BACKBONES

NETWORK = "vit_tiny_scratch"
PROBE = ["--backbone", NETWORK, "--image-size", "14", "--epochs", "3"]
PROBE += ["--batch-size", "101", "--scores", "mahalanobis", "energy"]
SCENES = ["--estimator-steps", "4", "--batch-size", "2", "--crop", "28", "28", "--channels", "4", "--methods", "lr"]
SCENES += ["--image-height", "28", "--object-share", "0.3", "0.8", "--variant", "d-d"]
# both stages: a network with batch norms and a flow; a segmentor with mixtures and the estimator
WHOLE = {
    "quantod": ["--image-size", "8", "--epochs", "1", "--flow-epochs", "1", "--blocks", "1", "--width", "8"],
    "uem": [*SCENES, "--variant", "g-d", "--steps", "3"],
}
WHOLE["quantod"] += ["--outliers", "gratings", "--scores", "quantod", "energy"]
ONE_DEVICE = "--xla_force_host_platform_device_count=1"


@pytest.fixture(scope="module", autouse=True)
def as_users_run_it():
    """Few scenes, loose ranks."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):
        patch.setattr(streets, "ROWS", {"train": 4, "test": 1})
        yield


def together(command: str, folder: Path, flags: Sequence[str], kill: str = "none") -> list[tuple[int, str]]:
    """(exit status, what it printed) of two processes that run the command, each with a workdir of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = [*flags, "--coordinator", address, "--processes", "2"]
    parts = [
        start(
            *("host_commands.py", command, kill, *shared, "--process", str(i), "--workdir", str(folder / str(i))),
            flags=ONE_DEVICE,
        )
        for i in range(2)
    ]
    try:
        printed = [part.communicate(timeout=600)[0] for part in parts]
    finally:
        for part in parts:
            part.kill()
    return [(part.returncode, text) for part, text in zip(parts, printed, strict=True)]


def arrays(shapes):
    """Random arrays of these shapes; scales and variances are one."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        of_norm = jax.tree_util.keystr(path[-1:]).strip("[]'.") in ("scale", "var")
        return (np.ones(leaf.shape) if of_norm else 0.05 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> dict[str, list[str]]:
    """Of each command, with the weights and the folder of images that they name."""
    folder = tmp_path_factory.mktemp("given")
    network = FEATURE_BACKBONES[NETWORK].build()
    write_safetensors(
        folder / "network.safetensors",
        arrays(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 14, 14, 3)))),
    )
    (folder / "own").mkdir()
    for i in range(5):  # an odd number: the two processes read three and two
        Image.fromarray(np.full((14, 14, 3), 40 * i, np.uint8)).save(folder / "own" / f"{i}.png")
    config = resolve(parse(SCENES), accelerator=False)
    segmentor = networks.segmentor(config, len(streets.CLASS_NAMES), {})
    blank = jax.ShapeDtypeStruct((1, *config.crop, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: segmentation.init_segmentor(segmentor, jax.random.key(0), x), blank)
    about = storage.about_segmentor(config, tuple(streets.CLASS_NAMES), {}, storage.read_preprocessing(config))
    storage.save(folder / "segmentor.safetensors", stages.final(config, arrays(shapes)), about)
    return {
        "quantod": [*PROBE, "--weights", str(folder / "network.safetensors"), "--outliers", f"own={folder / 'own'}"],
        "uem": [*SCENES, "--segmentor", str(folder / "segmentor.safetensors")],
    }


@pytest.mark.long
@pytest.mark.parametrize(("command", "killed"), [("quantod", 1), ("uem", 0)])
def test_a_run_of_two_survives_a_kill_and_is_that_of_one(command, killed, flags, tmp_path):
    given = [*flags[command], "--run", "run"]
    ended = together(command, tmp_path, given, kill=str(killed))
    status, printed = ended[1 - killed]
    assert (status, ended[killed][0]) == (1, -9), printed
    [error] = [line for line in printed.splitlines() if "rror" in line]
    assert error.startswith(f"error: process {killed} of 2, on {socket.gethostname()}, has ended (it was killed")
    assert "--resume" in error
    resumed = together(command, tmp_path, [*given, "--resume"])
    assert [status for status, _ in resumed] == [0, 0], resumed
    assert resumed[1][1] == ""  # process 0 alone prints
    assert alone(command, [*given, "--workdir", str(tmp_path / "one")]) == 0
    assert not (tmp_path / "1" / "run").exists()  # nor writes
    compare(tmp_path / "one" / "run", tmp_path / "0" / "run")


@pytest.mark.long
@pytest.mark.parametrize("command", WHOLE)
def test_two_processes_train_both_stages_as_one(command, tmp_path):
    given = [*WHOLE[command], "--run", "run"]
    ended = together(command, tmp_path, given)
    assert [status for status, _ in ended] == [0, 0], ended
    assert alone(command, [*given, "--workdir", str(tmp_path / "one")]) == 0
    compare(tmp_path / "one" / "run", tmp_path / "0" / "run", within=1e-2, stray=0.05)


def alone(command: str, given: Sequence[str]) -> int:
    from experiments import quantod, uem

    return {"quantod": quantod, "uem": uem}[command].main(list(given))


def compare(one: Path, two: Path, within: float = 1e-3, stray: float = 0.0) -> None:
    """The files of two runs hold the same numbers, but for clocks and the summary of devices.

    At most a share `stray` of an array may lie further apart than `within` of its largest number: Adam makes whole
    steps of gradients that are rounding alone. Biases of keys have no others, and are left out.
    """
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    for file in sorted(one.rglob("*.safetensors")):
        wanted, found = (flatten(read_safetensors(run / file.relative_to(one))) for run in (one, two))
        assert wanted.keys() == found.keys()
        for name, array in wanted.items():
            if array.size and not name.endswith("qkv/bias"):
                apart = np.abs(found[name] - array) > within * np.abs(array).max()
                assert np.mean(apart) <= stray, f"{file.name} {name}: {found[name][apart]} against {array[apart]}"
    first, second = (json.loads((run / "results.json").read_text()) for run in (one, two))
    assert second["device"] == "2 x cpu, 2 processes"
    for row, other in zip(first["rows"], second["rows"], strict=True):
        for name in ("auroc", "fpr95"):
            assert other[name] == pytest.approx(row[name], abs=1.0)
