"""One training pass equals PyTorch's: loss, gradients and running statistics (golden/extractors.npz)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.random_weights import random_state, sample

from quantjax.convert.classifier_names import WIDE, to_foreign
from quantjax.convert.classifiers import to_variables
from quantjax.extractors import BACKBONES
from quantjax.trees import flatten

LABELS = [0, 3, 3, 9]


def one_pass(recorded, padding):
    """Loss, gradients, statistics of the recorded batch with `padding` rows of rubbish behind it."""
    shapes = [tuple(int(n) for n in s.split(",")) for s in recorded["wrn10_1/shapes"]]
    variables = to_variables(random_state(list(recorded["wrn10_1/names"]), shapes), "wrn10_1", 10)
    images = np.random.RandomState(2).standard_normal((4, 16, 16, 3)).astype(np.float32)
    images = jnp.asarray(np.concatenate([images, np.full((padding, 16, 16, 3), 7.0, np.float32)]))
    mask, labels = jnp.arange(4 + padding) < 4, jnp.array(LABELS + [0] * padding)
    model = BACKBONES["wrn10_1"].build(10)

    def loss(params):
        full = {"params": params, "batch_stats": variables["batch_stats"]}
        out, new = model.apply(full, images, train=True, mask=mask, mutable=["batch_stats"])
        rows = -jnp.take_along_axis(jax.nn.log_softmax(out.logits), labels[:, None], 1)[:, 0]
        return jnp.where(mask, rows, 0.0).sum() / mask.sum(), (new["batch_stats"], out.logits[:4])

    (value, (statistics, logits)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    return value, logits, flatten({"params": gradients, "batch_stats": statistics})


@pytest.mark.parametrize("padding", [0, 2])
def test_loss_gradients_and_running_statistics_are_those_of_torch(golden, padding):
    recorded = golden("extractors")
    loss, logits, arrays = one_pass(recorded, padding)
    np.testing.assert_allclose(loss, recorded["step/loss"], rtol=1e-5)
    np.testing.assert_allclose(logits, recorded["step/logits"], atol=1e-4)
    compared = 0
    for path, array in arrays.items():
        name = to_foreign(path, WIDE)
        array = np.asarray(array)
        if path.startswith("params"):
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            wanted = recorded[f"step/gradient/{name}"]
            np.testing.assert_allclose(sample(array), wanted, atol=2e-5 * wanted[-1], err_msg=name)
        else:
            np.testing.assert_allclose(array, recorded[f"step/statistic/{name}"], rtol=1e-4, atol=1e-5, err_msg=name)
        compared += 1
    assert compared == sum(k.startswith(("step/gradient", "step/statistic")) for k in recorded)
