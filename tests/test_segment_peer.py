"""The programs that benchmarks/segment.py times: equal logits from equal weights, and arithmetic counted right."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors import FEATURE_BACKBONES
from quantjax.extractors.convolution import convolve

ROOT = Path(__file__).parents[1]


def test_counted_arithmetic():
    from benchmarks.counting import flops

    x, kernel = jnp.ones((2, 5, 6, 3)), jnp.ones((3, 3, 3, 7))
    assert flops(convolve, x, kernel) == 2 * (2 * 5 * 6 * 7) * (3 * 3 * 3)
    rows, matrix = jnp.ones((4, 11, 3)), jnp.ones((3, 5))
    assert flops(jnp.matmul, rows, matrix) == 2 * (4 * 11 * 5) * 3
    assert flops(lambda a: jax.lax.map(jax.jit(lambda row: row @ matrix), a), rows) == 2 * (4 * 11 * 5) * 3
    assert flops(jax.checkpoint(lambda a: jax.nn.relu(a @ matrix)), rows) == 2 * (4 * 11 * 5) * 3
    square = jnp.ones((3, 3))
    forms = partial(jax.lax.platform_dependent, cuda=lambda a: a, default=lambda a: a @ square)
    assert flops(forms, rows) == 2 * (4 * 11 * 3) * 3


@pytest.mark.parity
@pytest.mark.parametrize("head", ["linear", "mixture"])
def test_logits_are_those_of_torch(monkeypatch, head):
    pytest.importorskip("transformers")
    from benchmarks.scenes import windows
    from benchmarks.scenes.sizes import Size

    size = Size("tiny", (42, 84), 4, 2, 8, 8, 0, 0)
    known = FEATURE_BACKBONES["dinov2_vits14_reg"]
    build = partial(known.build, width=16, depth=4, heads=2, layers=(0, 1, 2, 3), grid=(5, 5))
    monkeypatch.setitem(FEATURE_BACKBONES, "tiny", known._replace(build=build, width=16))
    peer, model = windows.Peer(size, head), windows.segmentor(size, head)
    variables = windows.variables_of(peer.state, model, size, head)
    images = np.random.RandomState(0).standard_normal((1, *size.window, 3)).astype(np.float32)
    ours, _ = windows.ours(model, variables, images, "float32")
    theirs = peer.scoring(images, "float32")
    found, wanted = np.asarray(ours()), theirs().numpy()
    assert found.shape == wanted.shape == (1, 12, 24, 4)
    assert np.std(wanted, axis=(1, 2)).min() > 0.01
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
