import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.random_weights import random_state

from quantjax.convert.classifiers import identify, load_classifier, to_variables
from quantjax.convert.files import write_safetensors
from quantjax.extractors import BACKBONES, fold, standardise
from quantjax.trees import flatten

PUBLISHED = {"resnet20": "cifar10_resnet20.npz", "resnet56": "cifar10_resnet56.npz", "wrn40_2": "cifar10_wrn40_2.pt"}


@pytest.fixture
def weights(golden):
    """name -> a state dict as PyTorch would save it."""
    recorded = golden("extractors")

    def make(name):
        shapes = [tuple(int(n) for n in s.split(",")) for s in recorded[f"{name}/shapes"]]
        return random_state(list(recorded[f"{name}/names"]), shapes)

    return make


def test_layouts_and_places(weights):
    state = weights("wrn16_2")
    variables = to_variables(state, "wrn16_2", 10)
    params, statistics = variables["params"], variables["batch_stats"]
    kernel = params["group2_0"]["conv1"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 2, 3, 4], state["block2.layer.0.conv1.weight"][4, 3, 0, 2])
    np.testing.assert_array_equal(params["head"]["linear"]["kernel"], state["fc.weight"].T)
    np.testing.assert_array_equal(params["stem"]["norm"]["scale"], state["block1.layer.0.bn1.weight"])
    np.testing.assert_array_equal(statistics["norm"]["var"], state["bn1.running_var"])


@pytest.mark.parametrize(
    ("name", "rename"),
    [
        ("wrn10_1", lambda n: "module." + n),
        ("resnet20", lambda n: n.replace("linear.", "fc.")),
        ("resnet18", lambda n: "module." + n.replace("shortcut", "downsample")),
    ],
)
def test_other_names_in_use(weights, name, rename):
    state = weights(name)
    renamed = {rename(k): v for k, v in state.items()} | {"bn1.num_batches_tracked": np.array(7)}
    assert identify(renamed) == name
    wanted, given = to_variables(state, name, 10), to_variables(renamed, name, 10)
    assert jax.tree.all(jax.tree.map(np.array_equal, wanted, given))


def test_our_own_file_is_read_back(tmp_path, weights):
    variables = to_variables(weights("wrn10_1"), "wrn10_1", 10)
    write_safetensors(tmp_path / "a.safetensors", variables)
    again = load_classifier(tmp_path / "a.safetensors", "wrn10_1", 10)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))
    with pytest.raises(ValueError, match="they are weights of wrn10_1"):
        load_classifier(tmp_path / "a.safetensors", "resnet20", 10)


def test_weights_of_another_backbone_are_named(weights):
    with pytest.raises(
        ValueError, match="not weights of resnet56: they are weights of resnet20, so choose that backbone"
    ):
        to_variables(weights("resnet20"), "resnet56", 10)
    with pytest.raises(ValueError, match="not weights of wrn40_2: they are weights of wrn16_2"):
        to_variables(weights("wrn16_2"), "wrn40_2", 10)


def test_weights_of_another_size_are_described(weights):
    narrow = weights("wrn10_1")
    deep = narrow | {k.replace("layer.0", "layer.1"): v for k, v in narrow.items() if ".layer.0." in k}
    with pytest.raises(ValueError, match="wide residual network of depth 16 and width 1, which no backbone here is"):
        to_variables(deep, "wrn16_2", 10)
    shallow = {k: v for k, v in weights("resnet20").items() if ".2." not in k}
    with pytest.raises(ValueError, match="CIFAR residual network of depth 14, which no backbone here is"):
        to_variables(shallow, "resnet20", 10)


def test_missing_unexpected_and_misshapen_arrays_are_listed(weights):
    state = weights("wrn10_1")
    state.pop("fc.bias")
    state["extra"] = np.zeros(1)
    state["bn1.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError) as error:
        to_variables(state, "wrn10_1", 10)
    for part in ("1 missing (fc.bias)", "1 unexpected (extra)", "1 of the wrong shape (bn1.bias [3] instead of [64])"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match=r"and 3[0-9] more"):
        to_variables({"unrelated": np.zeros(3)}, "wrn10_1", 10)


@pytest.mark.parametrize(("backbone", "head"), [("wrn10_1", "fc"), ("resnet20", "linear")])
def test_a_head_that_is_missing_or_one_too_many_is_called_that(weights, backbone, head):
    state = weights(backbone)
    headless = {name: array for name, array in state.items() if not name.startswith(head)}
    with pytest.raises(ValueError, match=rf"of {backbone}: the head is missing \({head}\.bias, {head}\.weight\): give"):
        to_variables(headless, backbone, 10)
    with pytest.raises(
        ValueError, match=rf"not weights of resnet56: they are weights of {backbone}, so choose .*the head"
    ):
        to_variables(headless, "resnet56", 10)
    extra = {"head.weight": np.zeros((3, 64)), "classifier.0.bias": np.zeros(3)}
    with pytest.raises(ValueError, match=rf"{backbone}: there is an extra head \(head\.weight, classifier\.0\.bias\)$"):
        to_variables(state | extra, backbone, 10)
    own = flatten(to_variables(state, backbone, 10)) | {"params/classifier/bias": np.zeros(3)}
    with pytest.raises(ValueError, match=r"not weights of .*: there is an extra head \(params/classifier/bias\)$"):
        to_variables(own, backbone, 10)


def test_class_count_nan_and_unknown_backbone(weights):
    state = weights("wrn10_1")
    with pytest.raises(ValueError, match="for 10 classes, but num_classes is 100"):
        to_variables(state, "wrn10_1", 100)
    state["fc.bias"][0] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in fc\.bias"):
        to_variables(state, "wrn10_1", 10)
    with pytest.raises(ValueError, match="backbone must be one of"):
        to_variables(state, "wrn", 10)


def test_flow_weights_are_nobodys():
    assert identify({"module_list.0.scale": np.zeros((1, 4))}) is None


def published(name, data_dir, count):
    """Images, and outputs of the published weights with folded norms."""
    from quantjax.data.sources import open_source

    path, backbone = data_dir / "weights" / PUBLISHED[name], BACKBONES[name]
    if not path.is_file():
        pytest.skip(f"no {path}")
    if path.suffix == ".pt":
        pytest.importorskip("torch", exc_type=ImportError)
    source = open_source("cifar10", data_dir, "test")
    images = standardise(jnp.asarray(np.stack([source[i]["image"] for i in range(count)])), backbone.preprocessing)
    model, variables = fold(backbone.build(10), load_classifier(path, name, 10))
    return images, jax.jit(lambda x: model.apply(variables, x)[:2])(images)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_give_the_logits_of_torch(golden, data_dir, name):
    recorded = golden("extractors")
    wanted = recorded[f"published/{name}/logits"]
    _, (logits, features) = published(name, data_dir, len(wanted))
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    np.testing.assert_allclose(features, recorded[f"published/{name}/features"], atol=1e-4)


@pytest.mark.parity
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_against_torch_now(data_dir, name):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from golden.torch_networks import build

    images, (logits, _) = published(name, data_dir, 200)
    path = data_dir / "weights" / PUBLISHED[name]
    state = dict(np.load(path)) if path.suffix == ".npz" else torch.load(path, weights_only=True)
    network = build(name)
    network.load_state_dict({k: torch.as_tensor(v) for k, v in state.items()}, strict=False)
    with torch.inference_mode():
        wanted, _ = network.eval()(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits, wanted.numpy(), atol=1e-4)
