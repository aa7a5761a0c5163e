import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from sklearn import metrics as reference

from quantjax.metrics import pixels

NAMES = ("ap", "fpr95", "auroc", "best_f1")


def scene(rng, kind, size=4000):
    """Scores and labels of one kind; about one pixel in twenty an anomaly, one in ten ignored."""
    labels = rng.choice([0, 1, 255], size, p=[0.85, 0.05, 0.10]).astype(np.uint8)
    shift = 2.0 * (labels == 1)
    scores = {
        "wide": lambda: rng.normal(size=size) * 10 + 10 * shift,
        "tied": lambda: np.round(rng.normal(size=size) + shift),
        "narrow": lambda: 100 + 1e-3 * (rng.normal(size=size) + shift),
        "many octaves": lambda: np.sign(rng.normal(size=size)) * np.exp(20 * rng.normal(size=size)) + shift,
        "useless": lambda: rng.normal(size=size),
        "perfect": lambda: rng.random(size) + shift,
        "inverted": lambda: rng.random(size) - shift,
        "infinite": lambda: np.where(rng.random(size) < 0.1, np.inf, np.where(shift, 1, rng.normal(size=size))),
        "one value": lambda: np.full(size, -3.0),
        "zeros of both signs": lambda: np.where(rng.random(size) < 0.5, -0.0, 0.0) + rng.integers(0, 2, size) * shift,
    }[kind]()
    return scores.astype(np.float32), labels


KINDS = [
    "wide", "tied", "narrow", "many octaves", "useless", "perfect", "inverted", "infinite", "one value",
    "zeros of both signs",
]  # fmt: skip


def by_scikit_learn(scores, labels):
    known = labels != 255
    truth, values = labels[known], np.clip(scores[known], -3e38, 3e38)  # it refuses infinity
    fpr, tpr, _ = reference.roc_curve(truth, values, drop_intermediate=False)
    precision, recall, _ = reference.precision_recall_curve(truth, values)
    return {
        "ap": reference.average_precision_score(truth, values),
        "fpr95": fpr[np.argmax(tpr >= 0.95)],
        "auroc": reference.roc_auc_score(truth, values),
        "best_f1": np.nanmax(2 * precision * recall / np.maximum(precision + recall, 1e-12)),
    }


def f1_at(scores, labels, threshold):
    known = labels != 255
    return reference.f1_score(labels[known], scores[known] > threshold)


def test_metrics_by_hand():
    """anomalies 5, 3, 3; inliers 4, 3, 1, 0; the ignored 9 does not count.

    Descending: 5 (1 anomaly, 0 inliers), 4 (1, 1), 3 (3, 2), then inliers alone.
    """
    found = pixels.pixel_metrics([5, 3, 3, 4, 3, 1, 0, 9], [1, 1, 1, 0, 0, 0, 0, 255])
    # recall steps 1/3 at precision 1 and 2/3 at 3/5; all three are found at the cost of 2 of 4 inliers
    # pairs won: 5 beats 4; each 3 beats 2 and ties one: 4 + 2.5 + 2.5 of 12
    # F1: 5 -> 2/(1+3), 3 -> 6/(5+3)
    assert found == pytest.approx(
        {"ap": 1 / 3 + 2 / 3 * 3 / 5, "fpr95": 0.5, "auroc": 9 / 12, "best_f1": 0.75, "best_f1_threshold": 3.0}
    )
    assert found["best_f1_threshold"] < 3.0  # so that the score 3 is above it


@pytest.mark.parametrize("kind", KINDS)
def test_exact_metrics_equal_scikit_learn(rng, kind):
    for size in (60, 4000):
        scores, labels = scene(rng, kind, size)
        found, want = pixels.pixel_metrics(scores, labels), by_scikit_learn(scores, labels)
        for name in NAMES:
            np.testing.assert_allclose(found[name], want[name], atol=1e-12, err_msg=name)
        np.testing.assert_allclose(f1_at(scores, labels, found["best_f1_threshold"]), found["best_f1"], atol=1e-12)


def stream(scores, labels, bits, parts=1):
    counts = pixels.empty(bits)
    for piece in zip(np.array_split(scores, parts), np.array_split(labels, parts), strict=True):
        counts = pixels.add(counts, *piece)
    return pixels.result(counts)


@pytest.mark.parametrize("bits", [10, 12, 16, 22])
@pytest.mark.parametrize("kind", KINDS)
def test_streamed_metrics_are_within_their_stated_error(rng, kind, bits):
    for size in (60, 4000):
        scores, labels = scene(rng, kind, size)
        found, want = stream(scores, labels, bits), by_scikit_learn(scores, labels)
        for name in NAMES:
            assert abs(found[name] - want[name]) <= found[f"{name}_error"] + 1e-12, name
        np.testing.assert_allclose(f1_at(scores, labels, found["best_f1_threshold"]), found["best_f1"], atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_error_bounds_hold_whatever_the_order_inside_a_bin(seed):
    """A few bins hold all pixels, so that the bounds must do the work: best, worst and random order inside each."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(300) < rng.choice([0.03, 0.3, 0.9])).astype(np.uint8)
    coarse = 2.0 ** rng.integers(-2, 3, 300)
    for order in (labels, -labels.astype(float), rng.random(300), labels * rng.random(300), -labels * rng.random(300)):
        scores = (coarse * (1.2 + 0.01 * order)).astype(np.float32)  # one bin a power of two at 10 bits
        found, want = stream(scores, labels, 10), by_scikit_learn(scores, labels)
        for name in NAMES:
            assert abs(found[name] - want[name]) <= found[f"{name}_error"] + 1e-12, name


def test_bounds_shrink_with_the_bins_and_are_small_at_the_default(rng):
    scores, labels = scene(rng, "wide", 200_000)
    coarse, fine = stream(scores, labels, 14), stream(scores, labels, 22)
    for name in NAMES:
        assert fine[f"{name}_error"] < 0.05 * coarse[f"{name}_error"]
        assert fine[f"{name}_error"] < 1e-3
    assert coarse["ap_error"] > 1e-3


def test_streamed_metrics_are_those_of_scores_rounded_to_bins(rng):
    scores, labels = scene(rng, "wide")
    rounded = (scores.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)  # the first 16 bits
    found, want = stream(scores, labels, 16), pixels.pixel_metrics(rounded, labels)
    for name in NAMES:
        np.testing.assert_allclose(found[name], want[name], atol=1e-12)


def test_grouping_and_order_of_pixels_change_nothing(rng, monkeypatch):
    scores, labels = scene(rng, "wide")
    whole, order = stream(scores, labels, 16), rng.permutation(len(scores))
    assert stream(scores[order], labels[order], 16, parts=7) == whole
    monkeypatch.setattr(pixels, "CHUNK", 300)
    assert stream(scores, labels, 16) == whole
    maps = scores.reshape(40, 100), labels.reshape(40, 100).astype(np.int64)
    assert pixels.result(pixels.add(pixels.empty(16), *maps)) == whole
    assert pixels.pixel_metrics(*maps) == pixels.pixel_metrics(scores, labels)


def test_scores_that_a_sigmoid_would_make_equal_stay_apart():
    scores, labels = np.array([17, 18, 19, 40], np.float32), np.array([0, 0, 1, 1])
    for found in (pixels.pixel_metrics(scores, labels), stream(scores, labels, 22)):
        assert found["ap"] == found["auroc"] == found["best_f1"] == 1.0
        assert found["fpr95"] == 0.0


def test_streaming_needs_the_memory_of_its_bins_and_one_chunk(rng):
    scores, labels = np.tile(rng.normal(size=1 << 16).astype(np.float32), 128), np.zeros(1 << 23, np.uint8)
    labels[::50] = 1
    tracemalloc.start()
    try:
        for _ in range(2):
            counts = pixels.add(pixels.empty(22), scores, labels)
        pixels.result(counts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 230e6, peak  # two histograms of 67 MB, the cumulated one of 34 MB and some tens for a chunk
    assert counts.histogram.sum() == 1 << 23


FISHYSCAPES = """
import numpy as np
from quantjax.metrics import pixels
rng, counts = np.random.default_rng(0), pixels.empty()
labels = np.zeros((1024, 2048), np.uint8)
labels[500:520, 900:1100] = 1
labels[900:] = 255
for image in range(100):
    scores = rng.standard_normal(labels.shape, np.float32) + 3 * (labels == 1)
    counts = pixels.add(counts, scores, labels)
found = pixels.result(counts)
assert counts.histogram.sum() == 100 * (labels < 255).sum()
assert 0.97 < found["auroc"] < 0.99 and found["ap_error"] < 1e-3, found
# what getrusage says begins with the memory of the process that started this one
peak = next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('VmHWM'))
assert peak < 1e9, peak
print(peak)
"""


@pytest.mark.parity
def test_210_million_pixels_in_under_a_gigabyte_of_process_memory():
    subprocess.run([sys.executable, "-c", FISHYSCAPES], check=True)


@pytest.mark.parametrize("function", [pixels.pixel_metrics, lambda s, y: stream(np.asarray(s), np.asarray(y), 12)])
@pytest.mark.parametrize(
    ("scores", "labels", "named"),
    [
        ([1.0, 2.0], [0, 0], "both inlier .* got 2 and 0"),
        ([1.0, 2.0], [1, 255], "both inlier .* got 0 and 1"),
        ([1.0, 2.0], [0, 254], r"labels must be 0 .* got also \[254\]"),
        ([1.0, np.nan], [0, 1], "scores must not be NaN"),
    ],
)
def test_wrong_pixels_are_named(function, scores, labels, named):
    with pytest.raises(ValueError, match=named):
        function(scores, labels)


def test_wrong_shapes_and_bits_are_named():
    with pytest.raises(ValueError, match=r"labels must have the shape of scores, \[2\], got \[3\]"):
        pixels.pixel_metrics([1.0, 2.0], [0, 1, 0])
    with pytest.raises(ValueError, match="bits must lie"):
        pixels.empty(25)


def test_a_refused_image_leaves_the_counts_alone():
    counts = pixels.add(pixels.empty(10), [1.0, 2.0], [0, 1])
    with pytest.raises(ValueError, match="NaN"):
        pixels.add(counts, [3.0, np.nan], [0, 1])
    assert counts.histogram.sum() == 2


def test_nan_where_nothing_is_labelled_does_not_matter():
    assert pixels.pixel_metrics([1.0, 2.0, np.nan], [0, 1, 255])["ap"] == 1.0


@pytest.mark.parametrize("bits", [10, 22])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_the_best_threshold_at_zero_calls_a_score_of_zero_an_anomaly(bits, zero):
    """Anomalies at 0 and 1, inliers below: everything from 0 on is F1 = 1, and -0.0 would leave the zeros out."""
    scores, labels = np.array([-2.0, -1.0, zero, 0.0, 1.0], np.float32), np.array([0, 0, 1, 1, 1])
    for found in (pixels.pixel_metrics(scores, labels), stream(scores, labels, bits)):
        assert found["best_f1"] == 1.0
        np.testing.assert_array_equal(scores > found["best_f1_threshold"], labels == 1)
