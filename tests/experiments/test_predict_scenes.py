import csv
import json
from pathlib import Path

import numpy as np
import pytest
from golden.small_scenes import scene_detector
from PIL import Image

from experiments import predict
from experiments.scenes import marks
from quantjax import detector


@pytest.fixture(scope="module")
def fitted():
    """Linear heads with random weights on a tiny transformer; a threshold inside the scores."""
    whole = scene_detector(("road", "sky"), (28, 28), 99.0)
    score = detector.score(whole, np.random.default_rng(1).integers(0, 256, (28, 28, 3), dtype=np.uint8))
    return whole._replace(threshold=float(np.quantile(score, 0.8)))


@pytest.fixture(scope="module")
def run_folder(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "uem-streets"
    detector.save(fitted, folder / "detector")
    return folder


@pytest.fixture
def scenes(tmp_path, rng):
    for name in ("a.png", "deep/a.png"):
        file = tmp_path / "scenes" / name
        file.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(file)
    return tmp_path / "scenes"


def run(capsys, *arguments):
    status = predict.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    errors = captured.err.splitlines()
    if "images/s" in "".join(errors[-1:]):
        errors.pop()
    return status, captured.out.splitlines(), errors


def test_rows_masks_and_overlays_are_the_detectors_decisions(capsys, fitted, run_folder, scenes):
    output = scenes / "marked"
    for _ in range(2):  # the second time, what the first wrote below the folder of scenes is no scene
        status, lines, errors = run(capsys, "--run", run_folder, "--json", "--output", output, scenes)
        rows = [json.loads(line) for line in lines]
        assert (status, errors) == (0, [])
        assert [Path(row["path"]).relative_to(scenes).as_posix() for row in rows] == ["a.png", "deep/a.png"]
    assert len({row["mask"] for row in rows} | {row["overlay"] for row in rows}) == 4
    decide = detector.predictor(fitted).predict
    for row in rows:
        image = np.array(Image.open(row["path"]))
        wanted = decide(image)
        mask, overlay = np.array(Image.open(row["mask"])), np.array(Image.open(row["overlay"]))
        np.testing.assert_array_equal(mask, np.where(wanted.outlier, 255, 0))
        np.testing.assert_array_equal(overlay[mask == 0], image[mask == 0])
        assert (overlay[mask > 0] != image[mask > 0]).any()
        assert row["unknown_percent"] == pytest.approx(100.0 * wanted.outlier.mean())
        assert row["parts"] >= len(row["largest"]) > 0
        assert row["highest_score"] == pytest.approx(wanted.score.max(), rel=1e-4)
        assert row["threshold"] == fitted.threshold


def test_a_bad_file_is_named_and_the_other_scenes_are_marked(capsys, run_folder, scenes):
    (scenes / "text.png").write_text("no image")
    status, lines, errors = run(capsys, "--run", run_folder / "detector", scenes)
    assert (status, len(lines), len(errors)) == (1, 2, 1)
    assert "text.png" in errors[0]
    assert all("% unknown in" in line and line.endswith("a.png") for line in lines)


def test_tables_of_scenes_hold_the_largest_part(capsys, run_folder, scenes):
    _, lines, _ = run(capsys, "--run", run_folder, "--json", scenes)
    wanted = {row["path"]: row for row in map(json.loads, lines)}
    status, table, _ = run(capsys, "--run", run_folder, "--csv", "--top", "5", scenes)
    rows = list(csv.DictReader(table))
    assert (status, {row["path"] for row in rows}) == (0, set(wanted))
    shares = [float(row["unknown_percent"]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    for row in rows:
        [first, *_] = wanted[row["path"]]["largest"]
        assert [int(row[f"largest_{side}"]) for side in ("left", "top", "right", "bottom")] == first["box"]
        assert (int(row["largest_pixels"]), row["mask"]) == (first["pixels"], "")
    assert set(marks.flat({"path": "a", "largest": []})) == {"path"}


def test_no_scene_is_ever_overwritten(capsys, run_folder, scenes):
    other = scenes / "a_mask.png"
    (scenes / "deep" / "a.png").rename(other)
    before = other.read_bytes()
    status, lines, errors = run(capsys, "--run", run_folder, "--output", scenes, scenes / "a.png", other)
    assert (status, lines, len(errors)) == (2, [], 1)
    assert "would overwrite" in errors[0]
    assert other.read_bytes() == before


def test_an_output_that_is_a_file_is_one_error(capsys, run_folder, scenes):
    status, lines, errors = run(capsys, "--run", run_folder, "--output", scenes / "a.png", scenes / "deep")
    assert (status, lines, len(errors)) == (2, [], 1)
    assert "a.png" in errors[0]


def test_parts_touch_at_corners_and_the_largest_come_first():
    outlier = np.zeros((6, 9), bool)
    outlier[0, 0] = outlier[1, 1] = True
    outlier[3:5, 4:9] = True
    outlier[5, 0] = True
    count, largest = marks.parts(outlier)
    assert count == 3
    assert largest == [
        {"pixels": 10, "box": [4, 3, 9, 5]},
        {"pixels": 2, "box": [0, 0, 2, 2]},
        {"pixels": 1, "box": [0, 5, 1, 6]},
    ]
    assert marks.parts(np.zeros((3, 3), bool)) == (0, [])
    row = {"path": "a.png", "unknown_percent": 24.07, "parts": count, "largest": largest}
    assert "24.07 % unknown in 3 parts, the largest 10 pixels at x 4 to 9, y 3 to 5  a.png" in marks.to_line(row)
    assert marks.to_line({**row, "parts": 0, "largest": []}).endswith("unknown in 0 parts  a.png")
