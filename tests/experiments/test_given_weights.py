"""What flags say about given weights: which network of the file, how its images were prepared, how classes count."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import preprocessing
from experiments.images import classifier
from experiments.images.config import QuantOD, identity, parse, resolve
from experiments.images.sets import load_sets
from experiments.progress import Progress
from experiments.scenes import config as scenes
from experiments.scenes import storage
from quantjax import detector
from quantjax.convert.classifier_names import WIDE, to_foreign
from quantjax.convert.files import write_safetensors
from quantjax.convert.transformers import assumption
from quantjax.data.class_order import by_number
from quantjax.extractors import BACKBONES, CIFAR, ENERGY_OOD, FEATURE_BACKBONES, IMAGENET, NONE
from quantjax.extractors.preprocess import resize_square
from quantjax.trees import flatten
from quantjax.types import Preprocessing

CAFFE = ["--mean", "103.53", "116.28", "123.675", "--deviation", "57.375", "57.12", "58.395", "--channel-order", "bgr"]


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(BACKBONES["wrn10_1"].build(3).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 1.0, leaf.shape).astype(np.float32), shapes)


def foreign(variables, prefix):
    """The arrays as PyTorch would name and lay them out."""
    layout = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    flat = flatten(variables).items()
    return {prefix + to_foreign(path, WIDE): np.transpose(a, layout[np.ndim(a)]) for path, a in flat}


def given(*flags):
    return resolve(parse(["--backbone", "wrn10_1", *map(str, flags)]), accelerator=False)


@pytest.fixture
def two_networks(tmp_path, variables):
    other = jax.tree.map(lambda a: 2.0 * a, variables)
    np.savez(tmp_path / "two.npz", **foreign(other, "student."), **foreign(variables, "teacher.module."))
    return tmp_path / "two.npz"


@pytest.mark.parametrize(("flags", "factor"), [((), 1.0), (("--weights-key", "student"), 2.0)])
def test_the_network_of_a_file_is_chosen_by_flag_and_said(two_networks, variables, capsys, flags, factor):
    read = classifier.read_weights(given("--weights", two_networks, *flags), 3)
    np.testing.assert_array_equal(read.variables["params"]["head"]["linear"]["bias"],
                                  factor * variables["params"]["head"]["linear"]["bias"])  # fmt: skip
    said = capsys.readouterr().out
    assert ("two.npz: its weights under 'teacher.module' are read, not student" in said) == (not flags)


def test_what_does_not_fit_names_the_file(two_networks):
    with pytest.raises(ValueError, match=r"two\.npz: it holds no 'ema' .* it holds student, teacher"):
        classifier.read_weights(given("--weights", two_networks, "--weights-key", "ema"), 3)
    with pytest.raises(ValueError, match=r"two\.npz: the weights are for 3 classes, but num_classes is 4"):
        classifier.read_weights(given("--weights", two_networks), 4)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ([], ENERGY_OOD),
        (["--preprocessing", "imagenet"], IMAGENET),
        (["--mean", "0.5", "0.4", "0.3", "--deviation", "0.2", "0.2", "1"], ((0.5, 0.4, 0.3), (0.2, 0.2, 1.0), "rgb")),
        (["--mean", "51", "0", "255", "--deviation", "1", "1", "51"], ((0.2, 0, 1), (1 / 255, 1 / 255, 0.2), "rgb")),
        (CAFFE, (IMAGENET.mean[::-1], IMAGENET.std[::-1], "bgr")),
        (["--preprocessing", "none", "--channel-order", "bgr"], NONE._replace(order="bgr")),
    ],
)  # fmt: skip
def test_the_publisher_s_preprocessing(tmp_path, variables, flags, wanted):
    np.savez(tmp_path / "a.npz", **foreign(variables, ""))
    read = classifier.read_weights(given("--weights", tmp_path / "a.npz", *flags), 3)
    np.testing.assert_allclose(read.preprocessing[:2], wanted[:2], rtol=1e-6)
    assert read.preprocessing.order == wanted[2]


def test_preprocessing_is_stored_with_the_weights_and_the_detector(tmp_path, variables):
    stored = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bgr")
    about = {classifier.PREPROCESSING: classifier.preprocessing_to_text(stored)}
    write_safetensors(tmp_path / "a.safetensors", variables, about)
    assert classifier.read_weights(given("--weights", tmp_path / "a.safetensors"), 3).preprocessing == stored
    old = {classifier.PREPROCESSING: "[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]"}  # of versions without an order
    write_safetensors(tmp_path / "b.safetensors", variables, old)
    again = classifier.read_weights(given("--weights", tmp_path / "b.safetensors"), 3).preprocessing
    assert again == stored._replace(order="rgb")
    record = {"source": "held-out images", "n": 40, "promised_tpr": 95.0, "achieved_tpr": 95.0}
    fitted = detector.Detector("wrn10_1", variables, stored, 8, ("a", "b", "c"), "msp", {}, (), -0.5, record)
    detector.save(fitted, tmp_path / "detector")
    loaded = detector.load(tmp_path / "detector")
    assert loaded.preprocessing == stored
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    mirrored = loaded._replace(preprocessing=stored._replace(order="rgb"))
    np.testing.assert_array_equal(  # a network of blue, green, red sees the colours turned round
        detector.predict(loaded, images).score, detector.predict(mirrored, images[..., ::-1]).score
    )
    with pytest.raises(ValueError, match="order of the channels must be one of bgr, rgb; got 'grb'"):
        detector.save(fitted._replace(preprocessing=stored._replace(order="grb")), tmp_path / "other")


def of_scenes(*flags):
    backbone = ["--inlier", "camvid", "--backbone", "dinov2_vits14", "--backbone-weights", "w.npz"]
    return scenes.resolve(scenes.parse([*backbone, *map(str, flags)]), accelerator=False)


def test_preprocessing_of_scenes_is_the_flags_else_the_segmentor_s(tmp_path):
    own = FEATURE_BACKBONES["dinov2_vits14"].preprocessing
    assert storage.read_preprocessing(of_scenes()) == own
    caffe = storage.read_preprocessing(of_scenes(*CAFFE))
    np.testing.assert_allclose(caffe.mean, own.mean[::-1], rtol=1e-6)
    assert caffe.order == "bgr"
    about = storage.about_segmentor(of_scenes(*CAFFE), ("road", "sky"), {}, caffe)
    storage.save(tmp_path / "segmentor.safetensors", {"bias": np.ones(2, np.float32)}, about)
    taken = dataclasses.replace(of_scenes(), segmentor=tmp_path / "segmentor.safetensors")
    assert storage.read_preprocessing(taken) == caffe
    template = {"bias": np.ones(2, np.float32)}
    assert storage.load(tmp_path / "segmentor.safetensors", template, about)["bias"].sum() == 2
    wanted = storage.about_segmentor(of_scenes(), ("road", "sky"), {}, own)
    with pytest.raises(ValueError, match="is of another segmentor: preprocessing is"):
        storage.load(tmp_path / "segmentor.safetensors", template, wanted)


def test_flags_that_belong_together():
    with pytest.raises(ValueError, match="--mean and --deviation belong together"):
        preprocessing.check(QuantOD(deviation=(0.5, 0.5, 0.5)))
    with pytest.raises(ValueError, match=r"--mean and --deviation must be finite .*got \(nan, 0.0, 0.0\)"):
        of_scenes("--mean", "nan", "0", "0", "--deviation", "1", "1", "1")
    with pytest.raises(ValueError, match="--weights-key teacher chooses within --backbone-weights"):
        scenes.resolve(scenes.UEM(weights_key="teacher"), accelerator=False)


def test_numbers_sort_as_numbers():
    labels, names = by_number(np.array([0, 1, 2, 3, -1], np.int32), ("1", "10", "2", "class 3"))
    assert names == ("1", "2", "10", "class 3")
    assert labels.tolist() == [0, 2, 1, 3, -1]
    assert by_number(np.array([1]), ("cat", "dog"))[1] == ("cat", "dog")
    assert by_number(np.array([1]), ("n2_10", "n2_9"))[0].tolist() == [0]


@pytest.mark.parametrize(("order", "names"), [("text", ("1", "10", "2")), ("numbers", ("1", "2", "10"))])
def test_class_folders_count_as_text_or_as_numbers(tmp_path, order, names):
    for split in ("train", "test"):
        for k, name in enumerate(("1", "2", "10")):
            (tmp_path / "own" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (k, k, k)).save(tmp_path / "own" / split / name / "a.png")
    (tmp_path / "other").mkdir()
    Image.new("RGB", (8, 8), (99, 0, 0)).save(tmp_path / "other" / "a.png")
    flags = ["--inlier", f"own={tmp_path / 'own'}", "--outliers", f"other={tmp_path / 'other'}", "--class-order", order]
    sets = load_sets(given(*flags, "--image-size", 8), Progress)
    assert sets.class_names == names
    for images, labels in ((sets.train_images, sets.train_labels), (sets.test_images, sets.test_labels)):
        assert [names[k] for k in labels] == [("1", "2", "10")[pixel] for pixel in images[:, 0, 0, 0]]


def test_the_rule_of_swin_s_shifts_is_a_setting_and_stored(tmp_path):
    swin = ("--backbone", "swin_b")
    assert storage.chosen_overrides(of_scenes(*swin, "--swin-shift", "always")) == {"shift": "always"}
    assert storage.chosen_overrides(of_scenes(*swin)) == {}
    with pytest.raises(ValueError, match="--swin-shift is of swin_b, got --backbone dinov2_vits14"):
        of_scenes("--swin-shift", "always")
    template = {"bias": np.ones(2, np.float32)}
    about = storage.about_segmentor(of_scenes(*swin), ("road",), {"window": 7}, IMAGENET)
    assert about["overrides"] == {"shift": "larger_maps", "window": 7}
    storage.save(tmp_path / "a.safetensors", template, about)
    assert storage.read_overrides(tmp_path / "a.safetensors") == {"shift": "larger_maps", "window": 7}
    storage.save(tmp_path / "old.safetensors", template, about | {"overrides": {"window": 7}})
    assert storage.read_overrides(tmp_path / "old.safetensors") == {"shift": "always", "window": 7}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clip_vitb16", "QuickGELU, as in OpenAI's weights; for weights trained with GELU name clip_vitb16_gelu"),
        ("clip_vitb16_gelu", "GELU, as in most of OpenCLIP's weights; for .* QuickGELU name clip_vitb16$"),
        ("swin_b", "swin_b: windows stay on maps of one window, shift larger_maps"),
        ("dinov2_vits14", "^$"),
    ],
)
def test_what_weights_do_not_say_is_noted(name, said):
    assert re.search(said, assumption(name))


@pytest.mark.parametrize(
    ("flags", "sizes"),  # image_size, short_side, network_size
    [
        (["--backbone", "deit_tiny16", "--inlier", "cifar10"], (32, None, 224)),
        (["--backbone", "deit_tiny16", "--inlier", "mine=/x"], (224, 256, None)),
        (["--backbone", "resnet50", "--inlier", "cifar100"], (32, None, 224)),
        (["--backbone", "resnet50", "--inlier", "mine=/x", "--short-side", "232"], (224, 232, None)),
        (["--backbone", "vit_base16", "--inlier", "cifar10", "--image-size", "96"], (96, None, 224)),
        (["--backbone", "vit_base16", "--inlier", "cifar10", "--image-size", "224"], (224, 256, None)),
        (["--backbone", "dinov2_vits14", "--inlier", "cifar10"], (32, None, 224)),
        (["--backbone", "dinov2_vits14", "--inlier", "mine=/x"], (224, None, None)),
        (["--backbone", "wrn16_2", "--inlier", "cifar10"], (32, None, None)),
    ],
)
def test_sizes_are_those_that_the_weights_were_published_for(tmp_path, flags, sizes):
    (tmp_path / "w.npz").touch()
    settings = resolve(parse([*flags, "--weights", str(tmp_path / "w.npz")]), accelerator=False)
    assert (settings.image_size, settings.short_side, settings.network_size) == sizes


def test_a_size_that_no_run_had_before_leaves_its_name_alone(tmp_path):
    settings = given()
    assert not {"short_side", "network_size"} & set(identity(settings))
    assert identity(dataclasses.replace(settings, network_size=64))["network_size"] == 64
    with pytest.raises(ValueError, match="--short-side must"):
        given("--image-size", "32", "--short-side", "16")
    with pytest.raises(ValueError, match="--network-size must be a multiple of 14, the patch of dinov2_vits14, got 64"):
        resolve(parse(["--backbone", "dinov2_vits14", "--weights", str(__file__), "--network-size", "64"]),
                accelerator=False)  # fmt: skip


def test_the_publisher_s_preprocessing_is_taken_from_the_names_and_said(tmp_path, capsys):
    shapes = jax.eval_shape(BACKBONES["wrn10_1"].build(3).init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    state = foreign(jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes), "")
    for ours, theirs in ((".layer.", ".nblockLayer."), (".bn", ".batch_norm"), ("bn1.", "batch_norm.")):
        state = {name.replace(ours, theirs): array for name, array in state.items()}
    state = {name.replace("convShortcut", "conv_inp"): array for name, array in state.items()}
    np.savez(tmp_path / "a.npz", **state)
    read = classifier.read_weights(given("--weights", tmp_path / "a.npz", "--network-size", "16"), 3)
    assert read.preprocessing == CIFAR._replace(side=16)
    said = capsys.readouterr().out
    assert "mean 0.4914 0.4822 0.4465, deviation 0.2023 0.1994 0.201, rgb, resized to 16 pixels for the network" in said
    record = {"source": "held-out images", "n": 40, "promised_tpr": 95.0, "achieved_tpr": 95.0}
    fitted = detector.Detector("wrn10_1", read.variables, read.preprocessing._replace(short_side=12), 8, tuple("abc"),
                               "msp", {}, (), -0.5, record)  # fmt: skip
    detector.save(fitted, tmp_path / "detector")
    loaded = detector.load(tmp_path / "detector")
    assert loaded.preprocessing == fitted.preprocessing
    with pytest.raises(ValueError, match="side of the preprocessing must be pixels, at least 1, or None; got 0"):
        detector.save(fitted._replace(preprocessing=CIFAR._replace(side=0)), tmp_path / "other")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    larger = np.asarray(resize_square(jnp.asarray(images), 16)).astype(np.uint8)
    direct = fitted._replace(preprocessing=CIFAR, image_size=16)
    np.testing.assert_allclose(
        detector.predict(loaded, images).score, detector.predict(direct, larger).score, atol=1e-5
    )
