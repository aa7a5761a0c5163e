"""The main command: the bundled demonstration made small, resume, bad input; all in this process, through `main`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import run_log
from experiments.images import flow
from experiments.quantod import main
from quantjax import methods
from quantjax.report import read_jsonl
from quantjax.train import pace

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--epochs", "5", "--flow-epochs", "4", "--blocks", "2", "--width", "32", "--image-size", "12"]
OUTLIERS = ("digits_8_9", "gratings")
SMALL += ["--outliers", *OUTLIERS]
TWO = ["--scores", "quantod", "energy"]

# AUROC in percent, on average over both sets or on one alone: a network trained on 808 digits is surer of gratings than
# of digits, so that scores of its logits fail on the far set, as they are known to; so short a flow does on the near.
FLOORS = {
    "quantod": ("gratings", 95.0),
    "msp": ("digits_8_9", 70.0),
    "max_logit": ("digits_8_9", 70.0),
    "energy": ("digits_8_9", 70.0),
    "odin": ("digits_8_9", 70.0),
    "mahalanobis": ("average", 92.0),
    "mahalanobis_perturbed": ("average", 92.0),
    "relative_mahalanobis": ("average", 88.0),
    "gem": ("average", 92.0),
    "gem_perturbed": ("average", 92.0),
    "gen": ("digits_8_9", 75.0),
    "temperature_scaling": ("digits_8_9", 70.0),
    "kl_matching": ("digits_8_9", 68.0),
    "openmax": ("average", 80.0),
    "mahalanobis_pp": ("average", 89.0),
    "relative_mahalanobis_pp": ("average", 85.0),
    "typicality": ("average", 84.0),
    "gaussian_mixture": ("average", 88.0),
    "knn_raw": ("gratings", 91.0),
    "nnguide": ("digits_8_9", 64.0),
    "vim": ("average", 86.0),
    "residual": ("average", 85.0),
    "react": ("digits_8_9", 76.0),
    "ash_p": ("digits_8_9", 73.0),
    "ash_b": ("digits_8_9", 71.0),
    "ash_s": ("digits_8_9", 40.0),
    "scale": ("digits_8_9", 65.0),
    "dice": ("digits_8_9", 67.0),
    "fdbd": ("digits_8_9", 76.0),
    "nci": ("digits_8_9", 71.0),
    "she": ("digits_8_9", 69.0),
    "gradnorm": ("digits_8_9", 74.0),
    "energy_mahalanobis_pp": ("digits_8_9", 85.0),
    "knn": ("average", 75.0),
    "quantod_pp": ("average", 94.0),
    "pca_residual": ("average", 87.0),
    "mahalanobis_layers": ("average", 95.0),
    "quantod_layers": ("average", 95.0),
    "energy_mahalanobis_layers": ("digits_8_9", 85.0),
    "energy_quantod_layers": ("digits_8_9", 85.0),
}


@pytest.fixture(scope="module", autouse=True)
def loose_ranks():
    """The experiments run as users run them."""
    import jax

    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("demonstration")
    assert main(["--workdir", str(workdir), *SMALL]) == 0
    [folder] = workdir.glob("quantod-digits-*")
    return folder


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_every_score_stays_above_its_floor(demonstration):
    rows = results_of(demonstration)["rows"]
    reached = {(r["method"], r["outlier"]): r["auroc"] for r in rows}
    reached |= {(m, "average"): np.mean([r["auroc"] for r in rows if r["method"] == m]) for m in methods.names()}
    assert set(FLOORS) == set(methods.names())
    assert not {m: reached[m, where] for m, (where, floor) in FLOORS.items() if reached[m, where] < floor}


def test_results_follow_the_schema(demonstration):
    results = results_of(demonstration)
    assert (results["schema"], results["positive_class"], results["inlier"]) == (1, "inlier", "digits")
    assert {(r["method"], r["outlier"]) for r in results["rows"]} == {(m, o) for m in methods.names() for o in OUTLIERS}
    assert results["accuracy"] > 70.0
    for row in results["rows"]:
        parts = ("load", "compile", "extract", "fit", "score")
        assert row["total_seconds"] == pytest.approx(sum(row[f"{p}_seconds"] for p in parts))
    assert results["seconds"] > 0
    calibration = results["calibration"]
    assert calibration["source"] == "training images in neither stage"
    assert (calibration["n"], calibration["promised_tpr"]) == (202, 95.0)
    assert 85.0 < calibration["achieved_tpr"] <= 100.0
    assert calibration["interval"][0] < 95.0 < calibration["interval"][1]
    assert "warning" not in results["note"]  # the flow is worth saving


def test_all_files_are_there(demonstration):
    for name in ("results.md", "report.html", "config.json", "detector/detector.json", "classifier.safetensors"):
        assert (demonstration / name).stat().st_size > 100
    assert (demonstration / "checkpoints" / "flow").is_dir()
    log = read_jsonl(demonstration / "metrics.jsonl")
    assert [r["epoch"] for r in log if r["stage"] == "classifier"] == list(range(1, 6))
    flow = [r for r in log if r["stage"] == "flow"]
    assert [r["epoch"] for r in flow] == list(range(1, 5))
    assert set(flow[0]["sets"]) == set(OUTLIERS)
    assert "bundled demonstration" in (demonstration / "results.md").read_text()


def test_a_finished_run_is_printed_again(demonstration, capsys):
    before = (demonstration / "results.json").stat().st_mtime_ns
    assert main(["--workdir", str(demonstration.parent), *SMALL]) == 0
    assert "finished before" in capsys.readouterr().out
    assert (demonstration / "results.json").stat().st_mtime_ns == before


def test_the_saved_detector_repeats_the_scores(demonstration):
    from quantjax import detector
    from quantjax.bundled import images as bundled
    from quantjax.data.images import fit

    images, outliers = (
        np.stack([fit(x, 12) for x in bundled.SETS[name].make("test")[0]]) for name in ("digits", "gratings")
    )
    run = detector.predictor(detector.load(demonstration / "detector"))
    decided = run.predict(images)
    achieved = 100.0 * np.mean(~decided.outlier)
    assert achieved == pytest.approx(results_of(demonstration)["calibration"]["achieved_tpr"], abs=0.3)
    assert run.predict(outliers).outlier.mean() > 0.8
    np.testing.assert_array_equal(decided.outlier, decided.p_value <= 0.05 + 1e-12)
    assert decided.p_value.min() * (1 + results_of(demonstration)["calibration"]["n"]) >= 1.0 - 1e-9


def test_a_run_without_outliers_sets_thresholds_alone(demonstration, tmp_path, capsys):
    weights = str(demonstration / "classifier.safetensors")
    command = ["--workdir", str(tmp_path), *SMALL, *TWO, "--weights", weights, "--flow-epochs", "1", "--run", "alone"]
    assert main([*command, "--outliers", "none", "--detector", "energy"]) == 0
    results = results_of(tmp_path / "alone")
    assert (results["rows"], results["outliers"]) == ([], [])
    assert "No outlier set was given" in capsys.readouterr().out
    detector = json.loads((tmp_path / "alone" / "detector" / "detector.json").read_text())
    assert detector["score"]["name"] == "energy"
    assert (
        detector["threshold"] == results["calibrations"]["energy"]["threshold"] == results["calibration"]["threshold"]
    )
    rows = read_jsonl(tmp_path / "alone" / "metrics.jsonl")
    assert [sorted(row) for row in rows] == [["epoch", "loss", "mean_log_likelihood", "stage", "step"]]
    from experiments.tables import main as tables

    assert tables([str(tmp_path / "alone"), str(demonstration)]) == 0


def interrupt_after(monkeypatch, stage: str, epoch: int) -> None:
    """A kill at the worst moment: the epoch is computed and logged, its checkpoint is not yet written."""
    original = run_log.append_jsonl

    def stop(path, row):
        original(path, row)
        if (row["stage"], row["epoch"]) == (stage, epoch):
            raise KeyboardInterrupt

    monkeypatch.setattr(run_log, "append_jsonl", stop)
    monkeypatch.setattr(pace, "CHECKPOINT_SECONDS", 0.0)


def test_a_run_killed_in_both_stages_goes_on_to_the_same_numbers(demonstration, tmp_path, monkeypatch, capsys):
    # layers, as of all methods: a program that computes them, too, rounds features otherwise
    command = ["--workdir", str(tmp_path), *SMALL, "--scores", "quantod", "mahalanobis_layers"]
    with monkeypatch.context() as patch:
        interrupt_after(patch, "classifier", 2)
        assert main(command) == 130
    assert main(command) == 1
    assert "--resume" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        interrupt_after(patch, "flow", 2)
        assert main([*command, "--resume"]) == 130
    assert main([*command, "--resume"]) == 0
    [folder] = tmp_path.glob("quantod-*")
    rates = ("fpr95", "auroc", "average_precision")
    one, two = results_of(demonstration), results_of(folder)
    whole = {(r["method"], r["outlier"]): [r[k] for k in rates] for r in one["rows"]}
    assert [whole[r["method"], r["outlier"]] for r in two["rows"]] == [[r[k] for k in rates] for r in two["rows"]]
    assert len(two["rows"]) == 4
    assert one["calibrations"]["quantod"] == two["calibration"]
    losses = [
        {r["epoch"]: r["loss"] for r in read_jsonl(f / "metrics.jsonl") if r["stage"] == "flow"}
        for f in (demonstration, folder)
    ]
    assert losses[0] == losses[1]


@pytest.mark.long
def test_the_command_on_four_devices(tmp_path):
    """Both stages and all scoring on four devices, among which batches of 30 do not divide; one device then judges the
    classifier alike. (Two trainings cannot be compared: at this learning rate a change of 1e-7 grows 30-fold a step.)
    """
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = ["--workdir", str(tmp_path), *SMALL, *TWO, "--epochs", "2", "--flow-epochs", "1"]
    program = [sys.executable, "-m", "experiments.quantod", *command, "--batch-size", "30", "--run", "four"]
    subprocess.run(program, check=True, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    weights = tmp_path / "four" / "classifier.safetensors"
    assert main([*command, "--weights", str(weights), "--scores", "energy", "--run", "one"]) == 0
    four, one = results_of(tmp_path / "four"), results_of(tmp_path / "one")
    assert (four["device"], one["device"]) == ("4 x cpu", "1 x cpu")
    assert four["accuracy"] == pytest.approx(one["accuracy"], abs=0.25)
    auroc = [{r["outlier"]: r["auroc"] for r in run["rows"] if r["method"] == "energy"} for run in (four, one)]
    assert auroc[0] == pytest.approx(auroc[1], abs=0.05)


def test_curves_as_tensorboard_events(tmp_path):
    pytest.importorskip("tensorboardX", reason="the tracking extra is not installed")
    run_log.record(tmp_path, {"stage": "flow", "epoch": 1, "loss": 2.0}, tensorboard=True)
    run_log._writer(tmp_path).close()
    [file] = (tmp_path / "tensorboard").iterdir()
    assert b"flow/loss" in file.read_bytes()


def test_reference_preset_and_paper_protocol(demonstration, tmp_path):
    """Foreign weights, the authors' mixing and optimiser, views, and capped outlier sets."""
    weights = demonstration / "classifier.safetensors"
    command = [
        "--workdir",
        str(tmp_path),
        *SMALL,
        *TWO,
        "--flow-epochs",
        "2",
        "--preset",
        "reference",
        "--protocol",
        "paper",
        "--views",
        "2",
    ]
    assert main([*command, "--weights", str(weights), "--loss", "mean"]) == 0
    results = results_of(next(tmp_path.glob("quantod-*")))
    assert results["calibration"]["source"] == "half of the test inliers"
    assert results["accuracy"] == results_of(demonstration)["accuracy"]


def image_folder(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for k in range(count):
        Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)).save(folder / f"{k}.png")
    return folder


def failing(capsys, *flags: str) -> str:
    assert main(list(flags)) == 1
    captured = capsys.readouterr()
    return captured.err


def test_bad_outlier_sets(tmp_path, capsys):
    base = ["--workdir", str(tmp_path / "runs")]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no image" in failing(capsys, *base, "--outliers", f"mine={empty}")
    text = image_folder(tmp_path / "text")
    (text / "9.png").write_text("not an image")
    assert "9.png" in failing(capsys, *base, "--outliers", f"mine={text}")
    assert "is the inlier set itself" in failing(capsys, *base, "--outliers", "digits")
    assert "looked at" in failing(capsys, *base, "--outliers", "nowhere")
    assert "Get it from" in failing(capsys, *base, "--outliers", "svhn")
    assert "may not call a set" in failing(capsys, *base, "--outliers", f"inlier={text}")
    assert not list((tmp_path / "runs").glob("quantod-*"))


def test_a_failed_overwrite_loses_nothing(demonstration, capsys):
    before = (demonstration / "results.json").read_bytes()
    command = ["--workdir", str(demonstration.parent), *SMALL, "--run", demonstration.name, "--overwrite"]
    assert "looked at" in failing(capsys, *command, "--outliers", "nowhere")
    assert (demonstration / "results.json").read_bytes() == before


def test_the_inlier_images_under_another_name(tmp_path, capsys):
    from quantjax.bundled import images as bundled

    images, _ = bundled.SETS["digits"].make("test")
    np.savez(tmp_path / "copy.npz", images=images[::-1])
    message = failing(capsys, "--workdir", str(tmp_path), "--outliers", f"copy={tmp_path / 'copy.npz'}")
    assert "holds images of --inlier digits only" in message


def test_bad_weights(demonstration, tmp_path, capsys):
    weights = str(demonstration / "classifier.safetensors")
    message = failing(capsys, "--workdir", str(tmp_path), "--weights", weights, "--backbone", "wrn16_2")
    assert "wrn10_1" in message
    (tmp_path / "empty.safetensors").touch()
    message = failing(
        capsys, "--workdir", str(tmp_path), "--weights", str(tmp_path / "empty.safetensors"), "--run", "b"
    )
    assert "empty.safetensors" in message


@pytest.fixture
def class_folders(tmp_path, rng):
    """Four classes of coloured squares, in class folders; the test split lacks one class."""
    for split, names in (("train", "abcd"), ("test", "abd")):
        for name in names:
            folder = tmp_path / "shapes" / split / name
            folder.mkdir(parents=True)
            for k in range(10):
                pixels = rng.integers(0, 60, (8, 8, 3), np.uint8)
                pixels[:, :, "abcd".index(name) % 3] += np.uint8(190 if name != "d" else 0)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    return tmp_path / "shapes"


def test_class_folders_keep_their_classes(class_folders):
    """Sets listed class by class hold every class in every part, and labels mean the same in both splits."""
    from experiments.images.config import QuantOD, resolve
    from experiments.images.sets import held_out, load_sets
    from experiments.progress import Progress

    inlier = f"shapes={class_folders}"
    sets = load_sets(resolve(QuantOD(inlier=inlier, outliers=("gratings",)), accelerator=False), Progress)
    assert sets.class_names == tuple("abcd")
    assert np.bincount(sets.test_labels, minlength=4).tolist() == [10, 10, 0, 10]
    kept_out = held_out(resolve(QuantOD(inlier=inlier), accelerator=False), 40, trained_here=True)
    assert kept_out == 8
    assert len(np.unique(sets.train_labels[-kept_out:])) > 1
    assert (sets.train_images[sets.train_labels == 1][:, :, :, 1].mean(axis=(1, 2)) > 150).all()


def test_class_folders_without_a_split_are_divided_by_class(class_folders):
    from experiments.images.config import QuantOD, resolve
    from experiments.images.sets import load_sets
    from experiments.progress import Progress

    flags = QuantOD(inlier=f"shapes={class_folders / 'train'}", outliers=("gratings",))
    sets = load_sets(resolve(flags, accelerator=False), Progress)
    assert np.bincount(sets.train_labels).tolist() == [8, 8, 8, 8]
    assert np.bincount(sets.test_labels).tolist() == [2, 2, 2, 2]


def test_a_class_that_only_the_test_split_has(class_folders, capsys):
    (class_folders / "test" / "a").rename(class_folders / "test" / "z")
    message = failing(capsys, "--workdir", str(class_folders.parent), "--inlier", f"s={class_folders}")
    assert "has classes that its training split has not: z" in message


def test_labels_outside_the_classes(tmp_path, capsys, rng):
    images = rng.integers(0, 256, (20, 8, 8, 3), np.uint8)
    np.savez(
        tmp_path / "set.npz",
        train_images=images,
        train_labels=np.arange(20) % 2,
        test_images=images,
        test_labels=np.arange(20) % 3,
    )
    message = failing(
        capsys, "--workdir", str(tmp_path), "--inlier", f"set={tmp_path / 'set.npz'}", "--outliers", "gratings"
    )
    assert "must lie in 0..1" in message


def test_features_that_are_not_finite(tmp_path):
    from experiments.images.config import QuantOD, resolve

    settings = resolve(QuantOD(), accelerator=False)
    rows = np.full((10, 4), np.nan, np.float32)
    with pytest.raises(ValueError, match="features: inlier must be finite"):
        flow.fit(settings, [rows], {"inlier": rows}, tmp_path, None)


def test_a_workdir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert "--workdir must be writable" in failing(capsys, "--workdir", str(tmp_path / "file"))


def test_a_small_set_of_class_folders_runs_through(class_folders, capsys):
    """Forty images in four classes: every method finds enough rows to be fitted on."""
    methods = ["knn", "mahalanobis", "relative_mahalanobis", "gem", "msp"]
    command = ["--workdir", str(class_folders.parent), "--inlier", f"shapes={class_folders}", "--outliers", "gratings"]
    command += ["--backbone", "wrn10_1", "--image-size", "8", "--scores", *methods]
    assert main([*command, "--epochs", "1", "--batch-size", "16"]) == 0
    [folder] = class_folders.parent.glob("quantod-shapes-*")
    assert {row["method"] for row in results_of(folder)["rows"]} == set(methods)
    assert json.loads((folder / "detector" / "detector.json").read_text())["class_names"] == ["a", "b", "c", "d"]

    # sets that memory does not hold give the same numbers, but train no classifier
    assert "stage 1 trains on images in memory" in failing(capsys, *command, "--epochs", "1", "--resident-mb", "0")
    weights = ["--weights", str(folder / "classifier.safetensors")]
    rates = []
    for name, megabytes in (("held", "4000"), ("streamed", "0")):
        assert main([*command, *weights, "--run", name, "--resident-mb", megabytes]) == 0
        rows = results_of(folder.parent / name)["rows"]
        rates.append([{key: value for key, value in row.items() if "second" not in key} for row in rows])
    assert rates[0] == rates[1]
    assert "shapes: 40 images, decoded by every pass" in capsys.readouterr().out
