"""Component metrics against a slow program that shares nothing with them: sets of pixels and a flood fill."""

import numpy as np
import pytest
from scipy import ndimage

from quantjax.metrics import components


def flood(pixels):
    """8-connected components of a set of (y, x), as a list of sets."""
    left, found = set(pixels), []
    while left:
        queue, component = [left.pop()], set()
        while queue:
            y, x = queue.pop()
            component.add((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            queue += near
        found.append(component)
    return found


def slowly(score, label, threshold, smallest_predicted, smallest_labelled):
    where = {(y, x): (score[y, x], label[y, x]) for y, x in np.ndindex(label.shape)}
    predicted = flood(p for p, (s, y) in where.items() if s > threshold and y != 255)
    predicted = [q for q in predicted if len(q) >= smallest_predicted]
    labelled = flood(p for p, (_, y) in where.items() if y == 1)
    ignored = set().union(*(g for g in labelled if len(g) < smallest_labelled))
    labelled = [g for g in labelled if len(g) >= smallest_labelled]
    predicted = [q - ignored for q in predicted if q - ignored]
    siou = []
    for i in labelled:
        s = set().union(*(q for q in predicted if q & i))
        others = set().union(*(g for g in labelled if g is not i))
        siou.append(len(i & s) / (len(s) + len(i) - len(i & s) - len(s & others)))
    anomalies = set().union(*labelled)
    return siou, [len(q & anomalies) / len(q) for q in predicted]


def blobs(rng, shape, share):
    """Smooth noise above a level: components of many sizes and outlines."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.7, 2.0))
    return noise, noise > np.quantile(noise, 1 - share)


@pytest.mark.parametrize("seed", range(12))
def test_random_blobs_equal_the_slow_program(seed):
    rng = np.random.default_rng(seed)
    shape, minimum = (24, 31), tuple(int(n) for n in rng.integers(1, 9, 2))
    counts, sious, ppvs = components.empty(), [], []
    for _ in range(3):
        noise, anomalies = blobs(rng, shape, rng.uniform(0.05, 0.4))
        label = np.where(anomalies, 1, 0)
        label[blobs(rng, shape, rng.uniform(0.0, 0.3))[1]] = 255
        score = noise / noise.std() + rng.normal(size=shape) * rng.choice([0.0, 0.3, 1.0])
        threshold = float(rng.uniform(0.3, 1.5))
        counts = components.add(counts, score, label, threshold, minimum)
        siou, ppv = slowly(score, label, threshold, *minimum)
        sious, ppvs = sious + siou, ppvs + ppv
    np.testing.assert_allclose(np.sort(counts.siou), np.sort(sious), rtol=1e-12)
    np.testing.assert_allclose(np.sort(counts.ppv), np.sort(ppvs), rtol=1e-12)
    assert len(sious) > 3
    found = components.result(counts)
    assert found["siou"] == pytest.approx(np.mean(sious))
    assert found["ppv"] == pytest.approx(np.mean(ppvs))
    f1 = []
    for level in np.linspace(0.25, 0.75, 11):  # the benchmark's own rounding of 0.6 and such
        true = sum(s >= level for s in sious)
        false = sum(p < level for p in ppvs)
        f1.append(2 * true / (2 * true + (len(sious) - true) + false))
    assert found["f1"] == pytest.approx(np.mean(f1))


def test_one_prediction_over_two_objects_by_hand():
    """Objects of 2 and 4 pixels in one row; one prediction covers the first, the gap and half of the second."""
    label = np.array([[1, 1, 0, 1, 1, 1, 1, 0, 0, 255]])
    score = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 1, 1]], float)
    counts = components.add(components.empty(), score, label, 0.5, (1, 1))
    # first: 2 of 5 + 2 - 2 - 2 on the other; second: 2 of 5 + 4 - 2 - 2. The void pixel is no prediction.
    np.testing.assert_allclose(counts.siou, [2 / 3, 2 / 5])
    np.testing.assert_allclose(counts.ppv, [4 / 5, 0])
    # levels .25 .30 .35 .40: TP 2, FP 1 -> 4/5; .45 .50 .55 .60 .65: TP 1, FN 1, FP 1 -> 1/2; .70 .75: TP 0 -> 0
    assert components.result(counts) == pytest.approx(
        {"siou": (2 / 3 + 2 / 5) / 2, "ppv": 0.4, "f1": (4 * 0.8 + 5 * 0.5) / 11}
    )


def test_small_components_are_dropped_or_ignored():
    label = np.zeros((9, 9), int)
    label[0, :2] = label[5:8, 5:8] = 1
    score = (label == 1) * 1.0
    score[3, 0] = 1
    strict = components.add(components.empty(), score, label, 0.5, components.MinimumSizes(predicted=2, labelled=3))
    np.testing.assert_array_equal(strict.siou, [1.0])
    np.testing.assert_array_equal(strict.ppv, [1.0])  # that on the small object is no false alarm
    loose = components.add(components.empty(), score, label, 0.5, (1, 1))
    assert len(loose.siou) == 2
    np.testing.assert_array_equal(np.sort(loose.ppv), [0.0, 1.0, 1.0])


def test_nothing_predicted_and_nothing_to_find():
    label = np.zeros((6, 6), np.uint8)
    label[:3, :3] = 1
    counts = components.add(components.empty(), np.zeros((6, 6)), label, 0.5, (1, 1))
    assert components.result(counts) == {"siou": 0.0, "ppv": 0.0, "f1": 0.0}
    with pytest.raises(ValueError, match="at least one labelled component"):
        components.result(components.add(components.empty(), np.ones((6, 6)), np.zeros((6, 6), int), 0.5, (1, 1)))


@pytest.mark.parametrize(
    ("score", "label", "named"),
    [
        (np.zeros(3), np.zeros(3), "score must have shape"),
        (np.zeros((2, 3)), np.zeros((3, 2)), r"label must have shape \[2, 3\]"),
        (np.zeros((2, 2)), np.full((2, 2), 2), r"label must be 0, 1 or 255 .* \[2\]"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), "must not be NaN"),
    ],
)
def test_wrong_images_are_named(score, label, named):
    with pytest.raises(ValueError, match=named):
        components.add(components.empty(), score, label, 0.5)
