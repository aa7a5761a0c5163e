import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import predict
from experiments.progress import Progress
from quantjax import detector
from quantjax.data.images import fit
from quantjax.extractors import BACKBONES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    backbone = BACKBONES["wrn10_1"]
    variables = jax.jit(backbone.build(2).init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    record = {"source": "held-out", "n": 9, "promised_tpr": 0.95, "achieved_tpr": 1.0}
    fitted = detector.Detector(
        "wrn10_1", variables, backbone.preprocessing, 16, ("zero", "one"), "msp", {}, (), -0.5, record
    )
    folder = tmp_path_factory.mktemp("runs") / "quantod-digits"
    detector.save(fitted, folder / "detector")
    return folder


@pytest.fixture
def photos(tmp_path, rng):
    for name, shape in (("a.png", (16, 16, 3)), ("deep/b.jpg", (20, 33, 3)), ("deep/c.png", (16, 16))):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file)
    return tmp_path


def run(capsys, *arguments):
    """(status, printed lines, errors); where anything was judged the last line says how fast."""
    status = predict.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    errors = captured.err.splitlines()
    if not any(error.startswith("error") for error in errors[-1:]):
        assert re.fullmatch(r"[\d,]+ images? in [\d.]+ s, compilation included: \S+ images/s", errors.pop())
    return status, captured.out.splitlines(), errors


def test_json_lines_are_the_detectors_decisions(capsys, run_folder, photos):
    status, lines, errors = run(capsys, "--run", run_folder, "--json", photos)
    rows = [json.loads(line) for line in lines]
    assert (status, errors) == (0, [])
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.jpg", "c.png"]
    fitted = detector.load(run_folder / "detector")
    images = np.stack([fit(np.array(Image.open(row["path"])), 16) for row in rows])
    wanted = detector.predict(fitted, images)
    for row, outlier, label, confidence, score in zip(rows, *wanted[:4], strict=True):
        assert row["decision"] == ("outlier" if outlier else "inlier")
        assert row["class"] == fitted.class_names[label]
        assert row["confidence"] == pytest.approx(confidence, abs=1e-5)
        assert row["score"] == pytest.approx(score, abs=1e-5)
        assert row["threshold"] == -0.5
        assert "p_value" not in row


def test_p_values_and_thresholds_of_classes_are_shown(capsys, run_folder, photos, tmp_path):
    """Of 9 held-out inliers none or all are at least as outlying: p is 1 / 10 or 10 / 10."""
    fitted = detector.load(run_folder / "detector")
    for scores, p in ((np.full(9, -9.0), 0.1), (np.full(9, 9.0), 1.0)):
        held_out = detector.keep(scores, np.arange(9) % 2)
        detector.save(fitted._replace(held_out=held_out), tmp_path / "d")
        _, lines, _ = run(capsys, "--run", tmp_path / "d", "--json", photos)
        assert [json.loads(line)["p_value"] for line in lines] == [p] * 3
        _, lines, _ = run(capsys, "--run", tmp_path / "d", photos)
        assert all(f"threshold -0.5  p {p:g}  " in line for line in lines)
    kept = fitted._replace(held_out=held_out, class_thresholds=(7.0, 8.0))
    detector.save(kept, tmp_path / "d")
    _, lines, _ = run(capsys, "--run", tmp_path / "d", "--json", photos)
    bounds = {"zero": 7.0, "one": 8.0}
    assert all(row["threshold"] == bounds[row["class"]] for row in map(json.loads, lines))


def test_a_bad_file_is_named_and_the_others_are_judged(capsys, run_folder, photos):
    (photos / "text.png").write_text("no image")
    (photos / "empty.png").touch()
    status, lines, errors = run(capsys, "--run", run_folder / "detector", photos)
    assert status == 1
    assert len(lines) == 3
    assert all(line.startswith(("inlier", "outlier")) and "threshold -0.5" in line for line in lines)
    assert [name in error for name, error in zip(("empty.png", "text.png"), errors, strict=True)] == [True, True]


def test_photographs_are_judged_upright(tmp_path, rng):
    pixels = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    _, image = predict.read_file(tmp_path / "a.png", 16)
    np.testing.assert_array_equal(image, pixels[::-1, ::-1][:, 4:20])


def test_files_that_are_not_read_are_counted_in_one_line_and_hidden_ones_are_not_seen(capsys, run_folder, photos):
    for name in ("a.jp2", "b.bmp2", "deep/c.jp2", "._a.png", ".thumbnails/a.png", "notes.txt"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"no picture that is read")
    (photos / "folder.jpg").mkdir()
    (photos / "a.png").rename(photos / "a.jfif")
    status, lines, errors = run(capsys, "--run", run_folder, photos)
    assert (status, len(lines), len(errors)) == (1, 3, 1)
    assert "3 files look like images and are not read (1 .bmp2, 2 .jp2)" in errors[0]
    status, lines, errors = run(capsys, "--run", run_folder, photos / "a.jp2")
    assert (status, lines, len(errors)) == (2, [], 1)
    (photos / "only").mkdir()
    (photos / "a.jp2").rename(photos / "only" / "a.jp2")
    status, lines, errors = run(capsys, "--run", run_folder, photos / "only")
    assert (status, len(errors)) == (2, 1)
    assert "1 file looks like an image and is not read (1 .jp2)" in errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "absent", "a.png"], "does not exist"),
        (["--run", ".", "a.png"], "holds no detector"),
        (["--run", "RUN", "empty_folder"], "holds no images"),
        (["--run", "RUN", "absent.png"], "absent.png"),
        (["--run", "RUN", "--output", "marked", "a.png"], "--output is for detectors of unknown objects"),
    ],
)
def test_nothing_to_do_is_status_2_and_one_error(capsys, run_folder, photos, monkeypatch, arguments, message):
    monkeypatch.chdir(photos)
    (photos / "empty_folder").mkdir()
    status, lines, errors = run(capsys, *(run_folder if a == "RUN" else a for a in arguments))
    assert (status, lines, len(errors)) == (2, [], 1)
    assert errors[0].startswith("error: ")
    assert message in errors[0]


def test_a_detector_of_features_judges_no_images(capsys, tmp_path):
    made = detector.fit("energy", logits=np.eye(3))._replace(threshold=0.0)
    detector.save(made, tmp_path / "d")
    status, lines, errors = run(capsys, "--run", tmp_path / "d", "a.png")
    assert (status, lines) == (2, [])
    assert "takes features, no images" in errors[0]


def test_lines_for_people_say_why():
    row = {"path": "a.png", "class": "cat", "confidence": 0.75, "score": 2.0, "threshold": 1.0}
    assert "(nearest class cat 75.0 %)" in predict.to_line({**row, "decision": "outlier"})
    assert "score 2 > threshold 1" in predict.to_line({**row, "decision": "outlier"})
    assert "score 0.5 <= threshold 1" in predict.to_line({**row, "decision": "inlier", "score": 0.5})


def test_help_loads_no_heavy_package():
    code = (
        "import sys, contextlib, experiments.predict as p\n"
        "with contextlib.suppress(SystemExit): p.main(['--help'])\n"
        "assert not {'jax', 'flax', 'numpy', 'PIL', 'tyro'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "--run" in done.stdout


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_every_ten_seconds_and_a_last_one():
    now, stream = [0.0], io.StringIO()
    with Progress("score", stream=stream, clock=lambda: now[0]) as report:
        for done in range(1, 51):
            now[0] = 0.5 * done
            report(done, 50, loss=1.25)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "score: 20/50 (40 %), 2/s, about 15 s left, loss 1.25",
        "score: 40/50 (80 %), 2/s, about 5 s left, loss 1.25",
        "score: 50/50 in 25.0 s, 2/s, loss 1.25",
    ]


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    with Progress("score", stream=stream) as report:
        report(3, 4)
    text = stream.getvalue()
    assert "score" in text
    assert "3/4" in text


def scores_of(lines):
    return [json.loads(line)["score"] for line in lines]


def test_many_files_are_judged_in_order_in_chunks_and_a_last_handful_joins_them(
    capsys, run_folder, tmp_path, rng, monkeypatch
):
    sizes, real = [], detector.predictor

    def counted(loaded, **options):
        made = real(loaded, **options)
        return made._replace(predict=lambda rows: (sizes.append(len(rows)), made.predict(rows))[1])

    monkeypatch.setattr(detector, "predictor", counted)
    monkeypatch.setattr(predict, "CHUNK", 4)
    monkeypatch.setattr(predict, "BATCH", 2)
    for number in range(9):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_text("no image")
    status, lines, errors = run(capsys, "--run", run_folder, "--json", tmp_path)
    assert (status, len(errors), sizes) == (1, 1, [4, 4])  # not 4, 2, 2
    assert [Path(json.loads(line)["path"]).stem for line in lines] == list("01245678")
    scored = scores_of(lines)
    assert len(set(scored)) == 8
    status, top, _ = run(capsys, "--run", run_folder, "--json", "--top", "3", tmp_path)
    assert (status, scores_of(top)) == (1, sorted(scored)[:-4:-1])
    status, top, _ = run(capsys, "--run", run_folder, "--json", "--top", "30", tmp_path)
    assert scores_of(top) == sorted(scored, reverse=True)


def test_nan_is_the_most_outlying():
    rows = [{"score": score} for score in (0.5, float("inf"), float("nan"), 2.0)]
    assert [predict.outlying(row) for row in rows] == [0.5, float("inf"), float("inf"), 2.0]


def test_csv_parquet_and_json_say_the_same(capsys, run_folder, photos, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    _, lines, _ = run(capsys, "--run", run_folder, "--json", photos)
    named = "\n".join(json.loads(line)["path"] for line in lines).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(named)))
    file = photos / "table.parquet"
    status, table, errors = run(capsys, "--run", run_folder, "--csv", "--parquet", file, "-")
    assert (status, errors) == (0, [])
    wanted = [json.loads(line) for line in lines]
    assert parquet.read_table(file).to_pylist() == wanted
    assert [
        {name: kind(row[name]) for name, kind in predict.COLUMNS.items()} for row in csv.DictReader(table)
    ] == wanted


@pytest.mark.parametrize("flags", [["--json", "--csv"], ["--top", "0"], ["--top", "some"]])
def test_flags_that_make_no_sense_are_refused(capsys, flags):
    with pytest.raises(SystemExit) as info:
        predict.parse(["--run", "r", *flags, "a.png"])
    assert info.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_an_empty_list_is_an_error(capsys, run_folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    status, lines, errors = run(capsys, "--run", run_folder, "-")
    assert (status, lines, errors) == (2, [], ["error: the list on standard input names no file"])
