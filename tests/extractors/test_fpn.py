"""The decoder against PyTorch's for the same random weights (golden/fpn.npz), and its properties."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.decoder_weights import to_variables
from golden.random_weights import random_state, sample

from quantjax.extractors.fpn import FeaturePyramid
from quantjax.extractors.normalization import Mode

SHAPES = {
    "plain": [(2, 5, 6, 12)] * 4,  # the last level is 2 x 3 cells, then 16 x 24, then 20 x 24
    "pyramid": [(2, 13, 18, 4), (2, 7, 9, 6), (2, 4, 5, 8), (2, 2, 3, 10)],
}
KINDS = list(SHAPES)


def decoder(kind, **options):
    return FeaturePyramid(kind, channels=8, token_hidden=10, **options)


def maps(kind):
    draw = np.random.RandomState(3)
    return [jnp.asarray(draw.standard_normal(shape), jnp.float32) for shape in SHAPES[kind]]


@pytest.fixture(scope="module", params=KINDS)
def case(request):
    """Kind, what torch gave, our variables for the same weights, and one training pass with its gradients."""
    kind = request.param
    with np.load(Path(__file__).parents[1] / "golden" / "fpn.npz") as file:
        recorded = {k.removeprefix(f"{kind}/"): v for k, v in file.items() if k.startswith(kind)}
    shapes = [tuple(int(n) for n in s.split(",")) for s in recorded["shapes"]]
    variables = to_variables(random_state(list(recorded["names"]), shapes), kind)

    def train(params, inputs):
        full = {"params": params, "batch_stats": variables["batch_stats"]}
        out, new = decoder(kind).apply(full, inputs, Mode(train=True), mutable=["batch_stats"])
        return jnp.square(out).mean(), (out, new["batch_stats"])

    trained = jax.jit(jax.value_and_grad(train, (0, 1), has_aux=True))(variables["params"], maps(kind))
    return kind, recorded, variables, trained


def close(found, wanted, tolerance=1e-5):
    np.testing.assert_allclose(found, wanted, atol=tolerance * (1e-3 + np.abs(wanted).max()))


def test_variables_are_those_that_torch_has(case):
    kind, _, variables, _ = case
    shapes = jax.eval_shape(decoder(kind).init, jax.random.key(0), maps(kind))
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, variables)


def test_evaluation_is_that_of_torch(case):
    kind, recorded, variables, _ = case
    out = jax.jit(decoder(kind).apply)(variables, maps(kind))
    assert out.dtype == jnp.float32
    assert out.shape == recorded["evaluation"].shape
    close(out, recorded["evaluation"])


def test_a_training_pass_is_that_of_torch(case):
    kind, recorded, _, ((_, (out, statistics)), (_, of_maps)) = case
    close(out, recorded["training"])
    wanted = {k.removeprefix("statistic/"): v for k, v in recorded.items() if k.startswith("statistic/")}
    for found, value in zip(*_leaves(statistics, to_variables(wanted, kind)["batch_stats"]), strict=True):
        close(found, value)
    for i, found in enumerate(of_maps):
        close(found, recorded[f"gradient_of_map/{i}"])


def test_gradients_are_those_of_torch(case):
    kind, recorded, _, (_, (gradients, _)) = case
    names = [str(n) for n in recorded["names"] if f"gradient/{n}" in recorded]
    assert len(names) == len(jax.tree.leaves(gradients))
    for name in names:
        path, value = _find(gradients, name, dict(zip(recorded["names"], recorded["shapes"], strict=True))[name], kind)
        wanted = recorded[f"gradient/{name}"]
        np.testing.assert_allclose(value, wanted, atol=2e-5 * (1e-2 + abs(wanted[:-1]).max()), rtol=1e-4, err_msg=path)


def _leaves(*trees):
    return [jax.tree.leaves(tree) for tree in trees]


def _find(tree, name, shape, kind):
    """Our value for one name of torch's, in torch's axis order and thinned out as recorded."""
    count = int(np.prod([int(n) for n in shape.split(",")]))
    torch_order = np.arange(count, dtype=np.float32).reshape([int(n) for n in shape.split(",")])
    (path, places), *_ = jax.tree_util.tree_leaves_with_path(to_variables({name: torch_order}, kind)["params"])
    for key in path:
        tree = tree[key.key]
    flat = np.zeros(count, np.float32)
    flat[np.asarray(places, int).reshape(-1)] = np.asarray(tree).reshape(-1)
    return jax.tree_util.keystr(path), sample(flat)


@pytest.mark.parametrize(("width", "count"), [(768, 14_958_592), (192, 7_430_848)])
def test_sizes(width, count):
    # for C = 768: doublings 3 (4 C^2 + C), norms 5 * 2 C, tokens 525_056, laterals 852_992, 3x3 2_360_320 + 4_132_352
    inputs = [jax.ShapeDtypeStruct((1, 37, 74, width), jnp.float32)] * 4
    variables = jax.eval_shape(FeaturePyramid().init, jax.random.key(0), inputs)
    out = jax.eval_shape(FeaturePyramid().apply, variables, inputs)
    assert out.shape == (1, 148, 296, 256)
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(variables["params"])) == count


def test_initial_weights_fill_torch_s_intervals():
    params = jax.jit(decoder("plain").init)(jax.random.key(0, impl="unsafe_rbg"), maps("plain"))["params"]
    fans = {  # torch counts inputs, but outputs for transposed convolutions
        "first_double": 4 * 12, "level1/double": 4 * 12, "level1/lateral": 12, "lateral3": 12 + 8, "lateral4": 12,
        "tokens1": 12, "tokens2": 10, "output2": 9 * 8,
    }  # fmt: skip
    for name, fan in fans.items():
        module = params
        for key in name.split("/"):
            module = module[key]
        largest = max(float(jnp.abs(module[leaf]).max()) for leaf in ("kernel", "bias"))
        assert 0.9 * fan**-0.5 < largest <= fan**-0.5, name


def test_evaluation_leaves_every_statistic(case):
    kind, _, variables, _ = case
    shapes = jax.eval_shape(lambda v: decoder(kind).apply(v, maps(kind), mutable=["batch_stats"])[1], variables)
    same = jax.make_jaxpr(lambda v: decoder(kind).apply(v, maps(kind), mutable=["batch_stats"])[1])(variables)
    assert jax.tree.structure(shapes["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    assert set(same.jaxpr.outvars) <= set(same.jaxpr.invars)  # handed through, not computed


def test_statistics_are_those_of_all_devices(case):
    kind, recorded, variables, _ = case

    def share(inputs):
        return decoder(kind).apply(variables, inputs, Mode(True, axis_name="devices"), mutable=["batch_stats"])

    two = [x[:, None] for x in maps(kind)]  # each image on a device of its own
    out, new = jax.jit(jax.vmap(share, axis_name="devices"))(two)
    close(out[:, 0], recorded["training"])
    wanted = {k.removeprefix("statistic/"): v for k, v in recorded.items() if k.startswith("statistic/")}
    for found, value in zip(*_leaves(new["batch_stats"], to_variables(wanted, kind)["batch_stats"]), strict=True):
        close(found, np.stack([value, value]))


def test_bfloat16_stays_near_float32(golden, case):
    kind, recorded, variables, _ = case
    out = jax.jit(decoder(kind, dtype=jnp.bfloat16).apply)(variables, maps(kind))
    difference = np.abs(np.asarray(out) - recorded["evaluation"]).max() / np.abs(recorded["evaluation"]).max()
    assert out.dtype == jnp.float32
    assert 1e-4 < difference < 0.05  # eight bits: 0.4 % a rounding; below 1e-4 it would not have been used


@pytest.mark.parametrize(
    ("kind", "shapes", "message"),
    [
        ("plain", [(1, 4, 4, 8)] * 3, "maps must be 4 arrays"),
        ("plain", [(1, 4, 4)] * 4, "maps must be 4 arrays"),
        ("plain", [(1, 4, 4, 8)] * 3 + [(1, 2, 2, 8)], 'one size of at least 2 x 2 for kind "plain"'),
        ("plain", [(1, 1, 4, 8)] * 4, "at least 2 x 2"),
        ("deep", [(1, 4, 4, 8)] * 4, "kind must be one of plain, pyramid; got 'deep'"),
    ],
)
def test_refusals(kind, shapes, message):
    inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(FeaturePyramid(kind).init, jax.random.key(0), inputs)


@pytest.mark.parity
@pytest.mark.parametrize("grid", [(17, 23), (18, 37)])
def test_live_torch(grid):
    torch = pytest.importorskip("torch")
    from benchmarks.peers.fpn_torch import FeaturePyramid as Peer

    torch.manual_seed(0)
    peer = Peer([192] * 4, "plain", 64).eval()
    inputs = np.random.RandomState(0).standard_normal((4, 2, *grid, 192)).astype(np.float32)
    with torch.inference_mode():
        wanted = peer([torch.from_numpy(x).permute(0, 3, 1, 2) for x in inputs]).permute(0, 2, 3, 1).numpy()
    variables = to_variables({k: v.numpy() for k, v in peer.state_dict().items()})
    close(jax.jit(FeaturePyramid(channels=64).apply)(variables, list(inputs)), wanted)
