"""The command of the second paper: a small run whole, resume, frozen segmentor, bad input; through `main`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.scenes import baselines, evaluation, networks, objectives, outcome, stages, storage
from experiments.scenes.config import COMPARED, METHODS, UEM, identity, parse, resolve
from experiments.scenes.sets import PASTE_SEED, Sets, open_sets
from experiments.uem import main
from quantjax import resize, segmentation
from quantjax.bundled import streets
from quantjax.extractors import standardise
from quantjax.report import read_jsonl
from quantjax.train import pace

SMALL = ["--steps", "6", "--estimator-steps", "4", "--batch-size", "2", "--crop", "28", "56", "--channels", "8"]
SMALL += ["--image-height", "28", "--object-share", "0.3", "0.8"]


@pytest.fixture(scope="module", autouse=True)
def few_scenes_and_loose_ranks():
    """The experiments run as users run them, on fewer scenes."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):
        patch.setattr(streets, "ROWS", {"train": 12, "test": 4})
        yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("uem")


@pytest.fixture(scope="module")
def small(workdir) -> Path:
    assert main(["--workdir", str(workdir), "--run", "small", *SMALL]) == 0
    return workdir / "small"


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def without_clocks(results: dict) -> dict:
    rows = [{k: v for k, v in r.items() if k not in ("score_seconds", "images_per_second")} for r in results["rows"]]
    return {"rows": rows, "miou": results["miou"], "parameters": results["parameters"]}


def test_a_run_leaves_its_results_report_weights_and_log(small):
    results = results_of(small)
    assert results["schema"] == 1
    assert results["positive_class"] == "outlier"
    assert [row["method"] for row in results["rows"]] == list(COMPARED)
    assert {row["dataset"] for row in results["rows"]} == {"streets_mix"}
    assert results["miou"]["before"] == results["miou"]["after"] > 0
    assert results["miou_after"].startswith("by construction")
    assert "after the second stage (by construction" in (small / "results.md").read_text()
    assert results["parameters"]["total"] == sum(v for k, v in results["parameters"].items() if k != "total")
    assert 0 <= results["stages"]["estimator"]["input_bound_percent"] <= 100
    report = (small / "report.html").read_text()
    assert report.count("data:image/png") == 4  # one strip for each of the four scenes
    assert "g-d lr" in (small / "results.md").read_text()
    log = read_jsonl(small / "metrics.jsonl")
    assert [row["epoch"] for row in log if row["stage"] == "segmentor"] == [1, 2, 3, 4, 5, 6]
    assert str(small.parent) not in json.dumps(results)
    detector = json.loads((small / "detector" / "detector.json").read_text())
    assert (detector["image_height"], detector["score"]["name"]) == (28, "lr")
    assert detector["calibration"]["interval"][0] <= detector["calibration"]["interval"][1]
    assert {"inlier_content", "objects_content", "evaluation_content"} <= set(results["config"])
    for name in (storage.SEGMENTOR, storage.ESTIMATOR):
        assert (small / name).stat().st_size > 0


def test_a_finished_run_is_shown_again_not_run_again(small, workdir, capsys):
    before = (small / "results.json").stat().st_mtime_ns
    assert main(["--workdir", str(workdir), "--run", "small", *SMALL]) == 0
    assert "finished before" in capsys.readouterr().out
    assert (small / "results.json").stat().st_mtime_ns == before


def test_a_run_killed_in_both_stages_goes_on_to_the_same_numbers(small, workdir, monkeypatch):
    record, left = stages.record, ["segmentor", "estimator"]

    def killed(folder, row, **options):
        record(folder, row, **options)
        if left and row["stage"] == left[0] and row["epoch"] == 3:
            left.pop(0)
            (folder / evaluation.SPILL).mkdir()  # as left behind by a run killed while it scored
            raise KeyboardInterrupt
        assert not (folder / evaluation.SPILL).exists()

    command = ["--workdir", str(workdir), "--run", "killed", *SMALL]
    monkeypatch.setattr(stages, "record", killed)
    monkeypatch.setattr(pace, "CHECKPOINT_SECONDS", 0.0)  # after every step
    assert main(command) == 130
    assert main(command) == 1  # unfinished: --resume or --overwrite
    assert main([*command, "--resume"]) == 130
    assert main([*command, "--resume"]) == 0
    assert without_clocks(results_of(workdir / "killed")) == without_clocks(results_of(small))


def test_a_given_segmentor_skips_the_first_stage(small, workdir, capsys):
    file = small / storage.SEGMENTOR
    # beside it another estimator, and the paper's comparison of Table 2 alone
    command = ["--workdir", str(workdir), "--run", "given", "--segmentor", str(file), *SMALL]
    command += ["--variant", "g-g", "--methods", "id", "ood", "lr"]
    assert main(command) == 0
    given, own = results_of(workdir / "given"), results_of(small)
    assert given["miou"] == own["miou"]
    assert [row["ap"] for row in given["rows"][:1]] == [row["ap"] for row in own["rows"] if row["method"] == "id"]
    assert given["rows"][2]["ap"] != own["rows"][2]["ap"]
    assert not any(row["stage"] == "segmentor" for row in read_jsonl(workdir / "given" / "metrics.jsonl"))
    assert main([*command, "--run", "other", "--channels", "16"]) == 1
    assert "channels is 8 there, this run has 16" in capsys.readouterr().err
    assert not (workdir / "other").exists()
    file.with_name("cut.safetensors").write_bytes(file.read_bytes()[:-100])
    assert main([*command, "--run", "other", "--segmentor", str(file.with_name("cut.safetensors"))]) == 1
    assert "damaged" in capsys.readouterr().err


def test_a_run_without_evaluation_sets_calibrates_on_inliers_alone(small, workdir, capsys):
    from experiments.tables import main as tables

    command = ["--workdir", str(workdir), "--run", "alone", "--segmentor", str(small / storage.SEGMENTOR), *SMALL]
    assert main([*command, "--evaluate", "none"]) == 0
    assert "nothing was evaluated" in capsys.readouterr().out
    alone, own = results_of(workdir / "alone"), results_of(small)
    assert (alone["rows"], alone["datasets"]) == ([], [])
    assert own["datasets"] == ["streets_mix"]
    assert alone["calibration"] == own["calibration"]  # the same segmentor, crops and objects to train on
    assert alone["miou"] == own["miou"]
    report = (workdir / "alone" / "report.html").read_text()
    assert "data:image/png" not in report
    assert "nothing was evaluated" in report
    detector = json.loads((workdir / "alone" / "detector" / "detector.json").read_text())
    assert detector["threshold"] == own["calibration"]["threshold"]
    assert tables([str(workdir / "alone"), str(small)]) == 0
    assert f"{alone['miou']['after']:.2f}" in capsys.readouterr().out


def test_predict_marks_files_as_the_run_judged_them_at_its_own_height(small, tmp_path, capsys):
    """Scenes of twice the run's 28 rows: its reader and scorer on one side, the command on the files on the other."""
    from experiments import predict
    from quantjax import detector
    from quantjax.data.pairs import resized

    scenes = [row for row in streets.Streets("test", (56, 112))]
    for index, row in enumerate(scenes):
        Image.fromarray(row["image"]).save(tmp_path / f"{index}.png")
    loaded = detector.load(small / "detector")
    assert predict.main(["--run", str(small), "--json", *(str(tmp_path / f"{i}.png") for i in range(len(scenes)))]) == 0
    marked = [json.loads(line)["unknown_percent"] for line in capsys.readouterr().out.splitlines()]

    at_28 = detector.predictor(loaded._replace(image_height=None)).predict
    seen = [at_28(resized(row, 28)["image"]) for row in scenes]
    assert marked == pytest.approx([100.0 * maps.outlier.mean() for maps in seen])  # each pixel stands for 2 x 2
    assert any(0.0 < share < 100.0 for share in marked)

    run = detector.predictor(loaded).predict
    whole = [{"prediction": run(row["image"]).label} for row in scenes]
    small_ = [{"prediction": maps.label} for maps in seen]
    classes = len(loaded.class_names)
    found = segmentation.mean_iou(iter_of(whole), scenes, classes)
    wanted = segmentation.mean_iou(iter_of(small_), [resized(row, 28) for row in scenes], classes)
    assert found == pytest.approx(wanted, abs=0.02)  # labels of 28 rows are a quarter of those of 56


def iter_of(maps):
    """A scorer that has its maps already, in the order of the scenes."""
    left = iter(maps)
    return lambda image: next(left)


def settings(**options) -> UEM:
    small = {"steps": 6, "estimator_steps": 3, "batch_size": 2, "crop": (28, 56), "channels": 8, "image_height": 28}
    return resolve(UEM(**small, **options), accelerator=False)


class Quiet:
    """Progress that nobody watches."""

    def __init__(self, title):
        self.title = title

    def __enter__(self):
        return lambda *args, **extra: None

    def __exit__(self, *_):
        return None


def start(config):
    """(sets, network, variables of an untrained segmentor as they are kept)."""
    sets = open_sets(config)
    network = networks.segmentor(config, len(sets.class_names))
    blank = jnp.zeros((1, *config.crop, 3))
    variables = jax.jit(partial(segmentation.init_segmentor, network))(jax.random.key(0), blank, None)
    return sets, network, jax.tree.map(np.array, stages.final(config, variables))


@pytest.mark.long
@pytest.mark.parametrize("frozen", [True, False])
def test_the_second_stage_leaves_a_frozen_segmentor_bit_identical(tmp_path, frozen):
    config = settings(freeze_statistics=frozen)
    sets, network, segmentor = start(config)
    before = jax.tree.map(np.array, segmentor)
    image = jnp.asarray(sets.test[0]["image"][None], jnp.float32) / 255
    run = jax.jit(lambda v: segmentation.segment(network, v, image).logits)
    logits = np.asarray(run(segmentor))
    keys = (jax.random.key(1), jax.random.key(2))
    estimator = networks.estimator(config)
    trained = stages.train_estimator(config, network, estimator, segmentor, sets, keys, tmp_path, Quiet)
    assert np.asarray(run(segmentor)).tobytes() == logits.tobytes()
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(segmentor), strict=True):
        assert a.tobytes() == b.tobytes()
    same = np.asarray(run(trained.segmentor)).tobytes() == logits.tobytes()
    assert same == frozen  # the released code lets the batch statistics drift


@pytest.mark.long
@pytest.mark.parametrize("name", list(segmentation.FINE_TUNINGS))
def test_fine_tuned_baselines_change_the_last_layer_alone(tmp_path, name):
    config = settings(variant="d-d")
    sets, network, segmentor = start(config)
    network, tuned = baselines.fine_tune(config, name, network, segmentor, sets, jax.random.key(3), tmp_path, Quiet)
    for part in ("backbone", "decoder"):
        assert tuned[part] is segmentor[part]
    old, new = (jax.tree.leaves(v["head"]["params"]) for v in (segmentor, tuned))
    for a, b in zip(old, new, strict=True):
        assert b.shape[-1] == a.shape[-1] + segmentation.FINE_TUNINGS[name].channels
        kept = b[..., : a.shape[-1]]
        assert 0 < np.abs(kept - a).max() < 1e-2
    maps = baselines.make_scorer(config, name, network, 7)((tuned, ()), sets.test[0]["image"])
    assert maps[name].shape == maps["prediction"].shape == (28, 56)
    assert np.isfinite(maps[name]).all()
    assert maps["prediction"].max() < 7


@pytest.mark.long
def test_preset_paper_standardises_what_the_segmentor_says():
    config = settings(preset="paper", variant="g-g")
    sets, network, segmentor = start(config)
    assert segmentor["standardisation"] == {"mean": 0.0, "deviation": 1.0}
    found = segmentation.fit_scale(network, segmentor, stages.crops(config, sets, None)(0))._asdict()
    assert found["deviation"] > 0
    crops = next(stages.crops(config, sets, None)(0))
    images = standardise(jnp.asarray(crops["image"]), network.preprocessing)
    best = np.asarray(jax.jit(lambda v: segmentation.segment(network, v, images).logits.max(-1))(segmentor))
    labelled = np.asarray(resize.nearest(jnp.asarray(crops["label"]), best.shape[1:])) != 255
    assert abs(best[labelled].mean() - found["mean"]) < found["deviation"]
    assert 0.5 < best[labelled].std() / found["deviation"] < 2
    inlier, unknown = objectives.scales(config, {"standardisation": found})
    assert float(inlier.mean) == float(unknown.mean) == float(found["mean"])
    assert objectives.scales(settings(variant="g-g"), {}) == (None, None)


@pytest.mark.parametrize(
    ("preset", "steps", "wanted"),
    [
        ("reference", 90_000, 1500),
        ("reference", 4000, 1500),
        ("paper", 1501, 1500),
        ("reference", 1500, 150),
        ("short", 4000, 400),
        ("short", 90_000, 1500),
    ],
)
def test_warm_up_follows_the_released_code_where_the_stage_is_long_enough(preset, steps, wanted):
    assert stages.warmup(settings(preset=preset), steps) == wanted


def test_the_stages_draw_different_crops(monkeypatch):
    seeds = []
    monkeypatch.setattr(stages, "training_batches", lambda *args, seed, **options: seeds.append(seed))
    config, sets = settings(seed=3), Sets([], [], [], {}, ())
    for objects in (None, [], [], None):
        stages.crops(config, sets, objects)
    assert seeds == [3, (3, 2), (3, 2), 3]


BAD = {
    "crop": (["--crop", "30", "56"], "--crop must be multiples of 14 pixels.*nearest are 28 56"),
    "stride": (["--stride", "200", "10"], "--stride must lie between 1 and the window"),
    "set": (["--evaluate", "road_anomaly,nowhere"], "--evaluate must be of .*got 'nowhere'"),
    "none among sets": (["--evaluate", "none,streets_mix"], "--evaluate none stands alone, got none streets_mix"),
    "no set": (["--evaluate", ","], "--evaluate must name at least one set, or none"),
    "twice": (["--evaluate", "streets_mix,streets_mix"], "stands there twice"),
    "foreign mix": (["--evaluate", "camvid_mix"], "needs --inlier camvid"),
    "baseline": (["--baselines", "rba"], "give --variant d-d, got g-d"),
    "no weights": (["--backbone", "dinov2_vits14"], "--backbone-weights must name the weights of dinov2_vits14"),
    "weights": (["--backbone-weights", "x.pth"], "vit_tiny_scratch is trained here and takes none"),
    "segmentor": (["--segmentor", "missing.safetensors"], "--segmentor must be the segmentor.safetensors"),
    "share": (["--object-share", "0.9", "0.2"], "--object-share must be two numbers"),
    "objects": (["--objects", "missing"], "no known set of objects and no folder"),
    "data": (["--evaluate", "road_anomaly"], "road_anomaly is not bundled"),
    "steps": (["--steps", "0"], "--steps must lie in"),
    "run": (["--run", "a/b"], "--run must be the name of a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_flags_are_one_error_and_leave_nothing(tmp_path, capsys, case):
    import re

    flags, message = BAD[case]
    assert main(["--workdir", str(tmp_path), *flags]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("error:") == 1
    assert not list(tmp_path.glob("uem-*"))


def test_unknown_flags_exit_with_status_two():
    with pytest.raises(SystemExit) as stop:
        parse(["--variant", "d-g"])
    assert stop.value.code == 2


def camvid(folder: Path, *, size=(42, 56)) -> Path:
    """A folder in CamVid's published layout, six scenes a split."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (folder / "CamVid" / split).mkdir(parents=True)
        (folder / "CamVid" / f"{split}annot").mkdir()
        for i in range(3):
            image = rng.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(image).save(folder / "CamVid" / split / f"{i}.png")
            label = rng.integers(0, 12, size).astype(np.uint8)
            Image.fromarray(label).save(folder / "CamVid" / f"{split}annot" / f"{i}.png")
    return folder


def cutouts(folder: Path, side: int) -> Path:
    (folder / "cutouts").mkdir()
    for i in range(3):
        Image.fromarray(np.full((side, side, 4), 255, np.uint8)).save(folder / "cutouts" / f"n{i}_thing.png")
    return folder


def truncate(data: Path, name: str = "0.png") -> None:
    file = data / "CamVid" / "train" / name
    file.write_bytes(file.read_bytes()[:60])


def enlarge_a_later_object(data: Path, alpha: int = 255) -> None:
    """Spoil an object that the mix shows in its second or third scene, but not in the first."""
    for i in range(3, 30):
        shutil.copy(data / "cutouts" / "n0_thing.png", data / "cutouts" / f"n{i:02}_thing.png")
    files = sorted((data / "cutouts").iterdir())[2 * 30 // 3 :]
    drawn = []
    for scene in range(3):
        rng = np.random.default_rng([PASTE_SEED, scene])
        rng.random()  # whether an object is pasted
        drawn.append(int(rng.integers(len(files))))
    later = next(number for number in drawn[1:] if number != drawn[0])
    Image.fromarray(np.full((99, 98, 4), alpha, np.uint8)).save(files[later])


BROKEN = {
    "mask of another size": (
        lambda d: Image.fromarray(np.zeros((9, 9), np.uint8)).save(d / "CamVid/trainannot/0.png"), "9 x 9"),
    "unknown label": (
        lambda d: Image.fromarray(np.full((42, 56), 77, np.uint8)).save(d / "CamVid/trainannot/0.png"), "77"),
    "image without its label": (lambda d: (d / "CamVid/trainannot/0.png").unlink(), "0.png"),
    "truncated image": (truncate, "0.png"),
    "a later image truncated": (lambda d: truncate(d, "2.png"), "2.png"),
    "a later object without a pixel": (
        lambda d: Image.fromarray(np.zeros((9, 9, 4), np.uint8)).save(d / "cutouts/n1_thing.png"), "n1_thing marks no"),
    "empty evaluation set": (lambda d: [f.unlink() for f in (d / "CamVid/test").iterdir()], "test"),
    "no objects": (lambda d: [f.unlink() for f in (d / "cutouts").iterdir()], "cutouts"),
    "object larger than the scene": (lambda d: (shutil.rmtree(d / "cutouts"), cutouts(d, 99)), "99 x 99"),
    "one object larger than its scene": (lambda d: enlarge_a_later_object(d), "99 x 98"),
    "one object without a pixel": (lambda d: enlarge_a_later_object(d, alpha=0), "marks no pixel"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_data_is_one_error_before_any_training(tmp_path, capsys, case):
    data = cutouts(camvid(tmp_path / "data"), 12)
    spoil, message = BROKEN[case]
    spoil(data)
    flags = ["--inlier", "camvid", "--objects", "cutouts", "--evaluate", "camvid_mix", "--data-dir", str(data)]
    flags += ["--backbone", "vit_tiny_scratch", "--preset", "short", "--steps", "2", "--estimator-steps", "2"]
    flags += ["--batch-size", "2", "--crop", "28", "56", "--channels", "8"]
    assert main(["--workdir", str(tmp_path / "runs"), *flags]) == 1
    error = capsys.readouterr().err
    assert message in error, error
    assert error.count("error:") == 1
    assert not list((tmp_path / "runs").glob("uem-*"))


def test_presets_and_defaults_follow_their_sources():
    full = resolve(
        UEM(inlier="cityscapes", backbone_weights="hf:facebook/dinov2-with-registers-base"), accelerator=True
    )
    assert (full.preset, full.backbone, full.crop, full.window, full.stride) == (
        "reference", "dinov2_vitb14_reg", (518, 1036), (518, 1036), (140, 140)
    )  # fmt: skip
    assert (full.steps, full.estimator_steps, full.learning_rate, full.batch_size) == (90_000, 4000, 5e-4, 16)
    assert (full.channels, full.hue, full.paste_probability, full.freeze_statistics) == (256, 0.5, 1.0, True)
    assert parse(["--evaluate", "a,b", "c"]).evaluate == ("a", "b", "c")
    for backbone in ("clip_vitb16", "swin_b"):
        other = resolve(UEM(inlier="cityscapes", backbone=backbone, backbone_weights="hf:a/b"), accelerator=True)
        assert (other.crop, other.window, other.stride) == ((512, 1024), (512, 1024), (128, 128))
    moved = dataclasses.replace(full, workdir=Path("elsewhere"), data_dir=Path("there"))
    assert identity(moved) == identity(full)
    assert set(METHODS) == set(segmentation.SCORES)


def test_objects_of_ones_own_count_by_path_and_content(tmp_path):
    (tmp_path / "a").mkdir()
    folder = cutouts(tmp_path / "a", 12) / "cutouts"
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    one, other = (settings(objects=str(tmp_path / name / "cutouts")) for name in "ab")
    assert identity(one)["objects"] == str(folder)
    assert identity(one) != identity(other)
    assert open_sets(one).content == open_sets(other).content
    assert outcome.public(identity(one), one)["objects"] == "cutouts"


# what a run reads, and a file in which one byte is turned
READ = {
    "inlier_content": ("CamVid/train/1.png", "CamVid/trainannot/1.png", "CamVid/test/1.png", "CamVid/testannot/1.png"),
    "objects_content": ("cutouts/n0_thing.png", "cutouts/n2_thing.png"),
}


@pytest.mark.parametrize(("key", "file"), [(key, file) for key, files in READ.items() for file in files])
def test_every_file_that_a_run_reads_counts_by_content(tmp_path, key, file):
    data = cutouts(camvid(tmp_path / "data"), 12)
    options = {"inlier": "camvid", "objects": "cutouts", "evaluate": ("camvid_mix",), "backbone": "vit_tiny_scratch"}
    config = settings(**options, data_dir=data)
    before = open_sets(config).content
    turned = bytearray((data / file).read_bytes())
    turned[-20] ^= 1
    (data / file).write_bytes(turned)
    after = open_sets(config).content
    assert {name for name in before if before[name] != after[name]} == {key}
    (data / "CamVid" / "val" / "0.png").write_bytes(b"not read")
    assert open_sets(config).content == after
