"""Resized position embeddings are PyTorch's, under the three rules in use (golden/transformers.npz)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from quantjax.extractors.positions import RULES, cubic_weights, resize_positions


@pytest.mark.parametrize("rule", RULES)
def test_resized_as_torch(golden, rule):
    recorded = golden("transformers")
    grids = [k.split("/")[2] for k in recorded if k.startswith(f"positions/{rule}/")]
    assert len(grids) == 4
    for name in grids:
        grid = tuple(int(n) for n in name.split("x"))
        given = resize_positions(recorded["positions"], grid, rule)
        given = given[::3, ::3] if grid == (37, 74) else given
        np.testing.assert_allclose(given, recorded[f"positions/{rule}/{name}"], atol=3e-6, err_msg=name)


@pytest.mark.parametrize("rule", RULES)
def test_own_size_is_untouched_and_weights_sum_to_one(rule):
    positions = jnp.arange(24.0).reshape(2, 3, 4)
    assert resize_positions(positions, (2, 3), rule) is positions
    for size, target in ((5, 3), (5, 9), (1, 4)):
        np.testing.assert_allclose(cubic_weights(size, target, rule).sum(1), 1.0, atol=1e-6)


def test_weights_are_constants_of_the_program():
    program = jax.make_jaxpr(lambda p: resize_positions(p, (4, 6), "exact"))(jnp.zeros((5, 5, 2)))
    assert {e.primitive.name for e in program.eqns} <= {"dot_general", "transpose"}


def test_unknown_rule():
    with pytest.raises(ValueError, match="rule must be one of antialiased, exact, offset; got 'nearest'"):
        resize_positions(jnp.zeros((2, 2, 1)), (3, 3), "nearest")
