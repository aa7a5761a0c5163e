"""Defaults by preset, demonstration and machine; what cannot run says so."""

import dataclasses
import re
import subprocess
import sys

import pytest

from experiments.images import flow
from experiments.images.config import QuantOD, Settings, identity, label_and_path, parse, resolve, run_name
from experiments.scenes import config as segmentation
from quantjax import flows


def scenes(**how):
    return segmentation.resolve(segmentation.UEM(), **how)


MAY_BE_NONE = {"data_dir", "weights", "weights_key", "preprocessing", "mean", "deviation", "channel_order", "run"}
MAY_BE_NONE |= {"short_side", "network_size", "auxiliary", "image_lists"}


def test_the_demonstration_and_the_paper_differ_in_size_alone():
    small = resolve(QuantOD(), accelerator=False)
    full = resolve(QuantOD(inlier="cifar10"), accelerator=False)
    assert (small.backbone, small.views, small.flow_epochs) == ("wrn10_1", 0, 20)
    assert (full.backbone, full.blocks, full.layers, full.width) == ("wrn40_2", 8, 2, 512)
    assert (full.epochs, full.flow_epochs, full.batch_size, full.q, full.clamp) == (100, 50, 128, 0.05, 3.0)
    assert full.outliers == ("textures", "svhn", "places365", "lsun_c", "lsun_r", "isun")
    assert {name for name, value in dataclasses.asdict(small).items() if value is None} == MAY_BE_NONE


def test_the_flags_have_the_library_s_defaults():
    full = flow.fit_settings(resolve(QuantOD(inlier="cifar10"), accelerator=False))
    reference = flow.fit_settings(resolve(QuantOD(inlier="cifar10", preset="reference"), accelerator=False))
    for given in (full, reference):
        preset = flows.PRESETS[given["preset"]]
        wanted = flows.DEFAULTS | {"preset": given["preset"], "epochs": preset.epochs, "shuffle": preset.shuffle}
        assert {key: wanted[key] for key in given} == given
    assert full.keys() | {"dropout"} == flows.DEFAULTS.keys()


def test_the_best_preset_leaves_the_published_flow_out():
    best = resolve(QuantOD(inlier="cifar10", preset="best"), accelerator=False)
    paper = resolve(QuantOD(inlier="cifar10"), accelerator=False)
    assert set(paper.scores) - set(best.scores) == {"quantod"}
    assert (best.detector, paper.detector) == ("energy_quantod_layers", "quantod")


def test_views_follow_the_machine():
    assert resolve(QuantOD(inlier="cifar10"), accelerator=False).views == 5
    assert resolve(QuantOD(inlier="cifar10"), accelerator=True).views == 50
    assert resolve(QuantOD(inlier="cifar10", flow_epochs=7), accelerator=True).views == 7


def test_the_reference_preset_reads_q_as_its_code_does():
    reference = QuantOD(inlier="cifar10", preset="reference")
    assert resolve(reference, accelerator=False).flow_epochs == 25
    assert not resolve(reference, accelerator=False).shuffle
    assert resolve(dataclasses.replace(reference, q=1.0), accelerator=False).loss == "mean"
    assert resolve(dataclasses.replace(reference, q=0.0), accelerator=False).loss == "min"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": 1.0}, r"--q must lie in \[0, 1\), got 1.0; for the mean use --loss mean"),
        ({"q": -0.1}, r"--q must lie in \[0, 1\), got -0.1"),
        ({"q": 1.5, "preset": "reference"}, "--q must lie"),
        ({"blocks": 0}, "--blocks must lie"),
        ({"epochs": 0}, "--epochs must lie"),
        ({"flow_epochs": 0}, "--flow-epochs must lie"),
        ({"views": -1}, "--views must lie"),
        ({"clamp": 0.0}, "--clamp must lie"),
        ({"calibration_tpr": 1.0}, "--calibration-tpr must lie"),
        ({"q": 7.0, "loss": "mean"}, "--q must lie"),
        ({"seed": -1}, "--seed must lie"),
        ({"seed": 2**63}, "--seed must lie"),
        ({"image_size": 10**6}, "--image-size must lie"),
        ({"run": "../elsewhere"}, "--run must be the name of a folder"),
        ({"outliers": ()}, "--outliers must name at least one"),
        ({"scores": ()}, "--scores must name at least one"),
        ({"scores": ("msp", "nearest")}, "--scores must be of quantod, .*; got 'nearest'"),
        ({"preset": "best", "scores": ("msp", "quantod")}, "--scores quantod is the published flow"),
        ({"preset": "best", "flow_epochs": 3}, "--flow-epochs is a setting of the published flow"),
        ({"outliers": ("none", "gratings")}, "--outliers none stands alone, got none gratings"),
        ({"scores": ("msp", "knn"), "detector": "energy"}, "--detector must be of msp, knn; got 'energy'"),
        ({"weights": "missing.npz"}, "--weights must be a file"),
        ({"weights_key": "teacher"}, "--weights-key teacher chooses within --weights: give that file, too"),
        ({"objective": "outlier_exposure"}, "--objective outlier_exposure needs --auxiliary"),
        ({"auxiliary": "letters"}, "--auxiliary letters is not read by --objective cross_entropy: leave it out, or"),
        ({"objective": "energy_margin", "auxiliary": "letters"}, "--auxiliary letters stands under --outliers, too"),
        ({"objective": "energy_margin", "auxiliary": "digits"}, "--auxiliary digits stands under --inlier, too"),
        ({"objective": "vos", "backbone": "deit_tiny16"}, "--objective vos trains a whole network, and that of --back"),
        ({"mean": (0.5, 0.5, 0.5)}, "--mean and --deviation belong together"),
        ({"mean": (0.5, 0.5, 0.5), "deviation": (0.5, 0.5, 0.0)}, "the deviation positive, got"),
    ],
)
def test_settings_that_cannot_run(change, message, tmp_path):
    if "weights" in change:
        change = {"weights": tmp_path / change["weights"]}
    with pytest.raises(ValueError, match=message):
        resolve(QuantOD(**change), accelerator=False)


def named(settings):
    return run_name(settings, identity(settings))


def test_the_name_of_a_run_follows_what_is_computed(tmp_path):
    settings = resolve(QuantOD(), accelerator=False)
    name = named(settings)
    assert name.startswith("quantod-digits-")
    assert len(name.rsplit("-", 1)[1]) == 8
    elsewhere = dataclasses.replace(settings, workdir=tmp_path, resume=True, score_batch_size=7)
    assert named(elsewhere) == name
    assert named(dataclasses.replace(settings, seed=1)) != name
    assert named(dataclasses.replace(settings, run="mine")) == "mine"
    assert named(dataclasses.replace(settings, inlier="/data/mine")).startswith("quantod-mine-")


def test_an_objective_is_part_of_the_name_but_the_first_one_of_none(tmp_path):
    weights = tmp_path / "a.npz"
    weights.touch()
    plain, other = (resolve(QuantOD(objective=name), accelerator=False) for name in ("cross_entropy", "vos"))
    assert not {"objective", "auxiliary"} & identity(plain).keys()
    assert identity(other) == identity(plain) | {"objective": "vos"}
    further = QuantOD(inlier="cifar10", objective="energy_margin", auxiliary="tiny=/t", weights=weights)
    assert resolve(further, accelerator=False).epochs == 10
    assert resolve(dataclasses.replace(further, weights=None), accelerator=False).epochs == 100
    assert identity(resolve(further, accelerator=False))["auxiliary"] == "tiny=/t"
    with pytest.raises(ValueError, match="--epochs must lie"):
        resolve(dataclasses.replace(further, epochs=0), accelerator=False)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("svhn", ("svhn", "svhn")),
        ("mine=/data/a", ("mine", "/data/a")),
        ("mine=/data/lr=0.1/a", ("mine", "/data/lr=0.1/a")),
        ("/data/lr=0.1/a", ("/data/lr=0.1/a", "/data/lr=0.1/a")),
        ("./lr=0.1", ("./lr=0.1", "./lr=0.1")),
        (r"C:\data\lr=0.1", (r"C:\data\lr=0.1", r"C:\data\lr=0.1")),
    ],
)
def test_a_label_stands_before_the_first_equals_sign_unless_that_is_in_a_path(name, wanted):
    assert label_and_path(name) == wanted


def test_weights_count_by_content(tmp_path):
    files = [tmp_path / name for name in ("a.npz", "b.npz", "c.npz")]
    for file, content in zip(files, (b"1", b"1", b"2"), strict=True):
        file.write_bytes(content)
    names = [identity(resolve(QuantOD(weights=f), accelerator=False))["weights"] for f in files]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ({}, "energy_quantod_layers"),
        ({"inlier": "cifar10"}, "quantod"),
        ({"scores": ("msp", "knn")}, "msp"),
        ({"scores": ("msp", "quantod")}, "quantod"),
        ({"detector": "energy"}, "energy"),
    ],
)
def test_the_method_of_the_detector(flags, chosen):
    assert resolve(QuantOD(**flags), accelerator=False).detector == chosen


def test_flags_become_settings():
    config = parse(["--outliers", "a", "b=/c", "--scores", "msp", "knn", "--views", "0", "--shuffle", "False"])
    assert config.outliers == ("a", "b=/c")
    assert config.scores == ("msp", "knn")
    assert (config.views, config.shuffle) == (0, False)


@pytest.mark.parametrize("flag", [["--no-such-flag"], ["--preset", "other"], ["--blocks", "many"]])
def test_unknown_flags_and_values_exit_with_two(flag, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(flag)
    assert exit_.value.code == 2
    assert flag[0] in capsys.readouterr().err


def test_help_starts_no_jax():
    code = (
        "import sys\nfrom experiments.quantod import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", [parse, segmentation.parse])
def test_help_shows_a_default_once(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        command(["--help"])
    boxed = " ".join(line.strip("│| ") for line in capsys.readouterr().out.splitlines())
    flags = re.split(r" (?=--[a-z-]+,? )", boxed)
    assert len(flags) > 40
    twice = [flag for flag in flags if len(re.findall(r"Default:? |\(default: ", flag)) > 1]
    assert twice == []
    assert not any("Default" in flag and "None)" in flag for flag in flags)


def test_settings_have_no_optional_field_left():
    optional = {f.name for f in dataclasses.fields(Settings) if re.search("None|Unset", str(f.type))}
    assert optional == MAY_BE_NONE


@pytest.mark.parametrize("settings", [lambda **how: resolve(QuantOD(inlier="cifar10"), **how), scenes])
def test_precision_follows_the_machine_unless_a_flag_says_so(settings):
    assert settings(accelerator=False).precision == "float32"
    assert settings(accelerator=True).precision == "bfloat16"


def test_a_precision_that_is_given_stays():
    given = QuantOD(inlier="cifar10", precision="tensorfloat32")
    assert {resolve(given, accelerator=there).precision for there in (False, True)} == {"tensorfloat32"}


def test_a_batch_must_divide_into_its_parts():
    with pytest.raises(ValueError, match="--accumulate must divide --batch-size, 128, got 3"):
        resolve(QuantOD(inlier="cifar10", accumulate=3), accelerator=False)
