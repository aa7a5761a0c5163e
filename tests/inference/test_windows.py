import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.inference import sliding, starts

HERE = Path(__file__).resolve().parent


def network(weights, windows):
    """Something that depends on where in the window a pixel lies, so that the blending shows."""
    x = jnp.asarray(windows, jnp.float32)
    position = jnp.arange(x.shape[1] * x.shape[2], dtype=jnp.float32).reshape(1, x.shape[1], x.shape[2], 1)
    return {"a": x * weights, "b": jnp.tanh(x[..., :1] + position) + jnp.mean(x, (1, 2, 3), keepdims=True)}


def finish(maps):
    return {"score": jnp.max(maps["a"], axis=-1) - maps["b"][..., 0], **maps}


def by_loop(weights, image, window, stride):
    """The same in a plain loop over windows, one at a time."""
    (h, w), (height, width) = window, image.shape[:2]
    canvas = np.zeros((max(h, height), max(w, width), 3), image.dtype)
    canvas[:height, :width] = image
    sums = {"a": np.zeros((*canvas.shape[:2], 3)), "b": np.zeros((*canvas.shape[:2], 1))}
    hits = np.zeros((*canvas.shape[:2], 1))
    ys = {min(y, canvas.shape[0] - h) for y in range(0, canvas.shape[0], stride[0])}
    xs = {min(x, canvas.shape[1] - w) for x in range(0, canvas.shape[1], stride[1])}
    for y in ys:
        for x in xs:
            out = network(weights, canvas[None, y : y + h, x : x + w])
            for name, total in sums.items():
                total[y : y + h, x : x + w] += np.asarray(out[name][0])
            hits[y : y + h, x : x + w] += 1
    maps = {name: (total / hits)[:height, :width] for name, total in sums.items()}
    return {"score": maps["a"].max(-1) - maps["b"][..., 0], **maps}


blended = sliding(network, finish, window=(4, 6), stride=(3, 4), batch_size=3)


@pytest.mark.parametrize("stride", [1, 2, 3, 5, 6])
def test_windows_cover_every_pixel_for_every_length_up_to_three_windows(stride):
    window = 6
    for length in range(1, 3 * window + 1):
        found = starts(length, window, stride)
        covered = {pixel for start in found for pixel in range(start, start + window)}
        assert covered == set(range(max(length, window)))
        assert found == sorted(set(found))
        assert all(b - a <= stride for a, b in itertools.pairwise(found))


def test_starts_of_published_image_sizes():
    # window 518x1036, stride 140: 720x1280 has 3x3 windows, 1024x2048 has 5x9, 1080x1920 has 6x8 ... (UEM, 2024)
    assert starts(720, 518, 140) == [0, 140, 202]
    assert starts(1280, 1036, 140) == [0, 140, 244]
    assert [len(starts(n, 518, 140)) for n in (1024, 1080)] == [5, 6]
    assert [len(starts(n, 1036, 140)) for n in (2048, 1920)] == [9, 8]
    assert starts(518 + 280, 518, 140) == [0, 140, 280]  # the last strip stays covered at a multiple of the stride


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (2, 9), (9, 4), (5, 7), (8, 12), (11, 17), (12, 18)])
def test_blended_maps_equal_a_plain_loop(rng, size):
    image, weights = rng.integers(0, 256, (*size, 3), np.uint8), np.float32(0.5)
    got, want = blended(weights, image), by_loop(weights, image, (4, 6), (3, 4))
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].shape[:2] == size
        assert isinstance(got[name], np.ndarray)
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-4)


def test_the_mean_of_equal_windows_is_exact_at_every_size():
    """Maps that do not depend on the window come back as they are: coverage, weights and hit counts in one."""
    run = sliding(lambda x: x.astype(jnp.float32), lambda m: m, window=(4, 3), stride=(3, 2), batch_size=4, shared=0)
    for height, width in [(1, 1), (4, 3), *zip(range(2, 13, 2), (9, 2, 7, 5, 8, 3), strict=True)]:
        image = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)
        np.testing.assert_allclose(run(image), image, rtol=1e-6)


def test_the_network_is_traced_once_whatever_the_image_size(rng):
    traces = []

    def traced(weights, windows):
        traces.append(windows.shape)
        return network(weights, windows)

    run = sliding(traced, finish, window=(4, 4), stride=(2, 2), batch_size=4)
    for size in ((4, 4), (7, 9), (3, 12), (7, 9)):
        run(np.float32(1), rng.integers(0, 256, (*size, 3), np.uint8))
    assert len(traces) == 1
    assert traces[0][1:] == (4, 4, 3)


def test_a_finish_that_blurs_never_sees_beyond_the_image(rng):
    image = rng.integers(1, 256, (7, 9, 1), np.uint8)

    def less_the_mean(maps):
        return maps[..., 0] - maps.mean()

    options = {"window": (4, 4), "stride": (2, 2), "batch_size": 4, "shared": 0}
    run = sliding(lambda x: x * 1.0, less_the_mean, pixelwise=False, **options)
    np.testing.assert_allclose(run(image), image[..., 0] - image.mean(), atol=1e-3)


def test_few_programs_serve_pictures_of_many_sizes(rng):
    seen = []

    def finish(maps):
        seen.append(maps.shape)
        return maps[..., 0]

    run = sliding(lambda x: x * 1.0, finish, window=(8, 8), stride=(8, 8), batch_size=4, shared=0)
    for side in range(8, 65):
        image = rng.integers(0, 256, (side, 20, 1), np.uint8)
        np.testing.assert_array_equal(run(image), image[..., 0])
    assert [shape[0] for shape in seen] == [8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64]


def test_weights_are_arguments_and_may_change(rng):
    image = rng.integers(0, 256, (5, 7, 3), np.uint8)
    for weight in (2.0, 3.0):
        np.testing.assert_allclose(blended(np.float32(weight), image)["a"], weight * image.astype(float), rtol=1e-6)


FOUR_DEVICES = """
import jax, numpy as np
from quantjax.inference import sliding
from test_windows import finish, network
assert jax.local_device_count() == 4
rng = np.random.default_rng(0)
for size in ((7, 11), (3, 5)):
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    maps = {}
    for name, devices in {"four": None, "one": jax.devices()[:1], "other": jax.devices()[1:2]}.items():
        run = sliding(network, finish, window=(4, 6), stride=(3, 4), batch_size=6, devices=devices)
        maps[name] = run(np.float32(0.5), image)
    for name in maps["one"]:
        for other in ("four", "other"):
            np.testing.assert_allclose(maps[other][name], maps["one"][name], rtol=1e-6, atol=1e-5)
    assert np.ptp(maps["one"]["score"]) > 10
"""


TWO_PROCESSES = """
import sys
import numpy as np
from quantjax.hosts import connect
path, address, index = sys.argv[1:]
connect(address, 2, int(index))
from quantjax.inference import sliding
from test_windows import finish, network
run = sliding(network, finish, window=(4, 6), stride=(3, 4), batch_size=3)
image = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)
np.savez(path, **run(np.float32(0.5), image))
"""


def start(program, *arguments, flags=""):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_backend_optimization_level=0 {flags}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parents[1]))),
    }
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], env=environment)


def test_four_devices_give_what_one_gives():
    assert start(FOUR_DEVICES, flags="--xla_force_host_platform_device_count=4").wait(300) == 0


def test_two_processes_share_the_windows_and_both_get_the_maps(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    paths = [tmp_path / f"{index}.npz" for index in range(2)]
    running = [start(TWO_PROCESSES, path, address, index) for index, path in enumerate(paths)]
    try:
        assert [process.wait(300) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    image = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)
    want = by_loop(np.float32(0.5), image, (4, 6), (3, 4))
    for path in paths:
        with np.load(path) as got:
            for name in want:
                np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: starts(10, 4, 5), r"stride must lie in \[1, 4\]"),
        (lambda: sliding(network, finish, window=(4, 4), stride=(4, 0), batch_size=1), "stride must lie"),
        (lambda: sliding(network, finish, window=(4, 4), stride=(4, 4), batch_size=0), "batch_size must lie"),
        (lambda: blended(np.float32(1), np.zeros((5, 5), np.uint8)), r"image must have shape \[H, W, C\]"),
        (lambda: blended(np.float32(1), np.zeros((0, 5, 3), np.uint8)), "at least one pixel"),
        (
            lambda: sliding(
                lambda x: x[:, ::2] * 1.0, lambda m: m, window=(4, 4), stride=(4, 4), batch_size=2, shared=0
            )(np.zeros((4, 4, 3), np.uint8)),
            r"window resolution, \[2, 4, 4\] and channels here, got \[2, 2, 4, 3\]",
        ),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
