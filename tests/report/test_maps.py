import base64
import io

import numpy as np
import pytest
from PIL import Image

from quantjax.report import Example, maps


def example(rng, height=30, width=40, **changes):
    label = np.zeros((height, width), np.uint8)
    label[5:15, 10:30], label[:3] = 1, 255
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    scores = {"id": rng.normal(size=label.shape).astype(np.float32), "lr": (label == 1) * 9.0 - 4.0}
    return Example("scene <1>", image, label, scores)._replace(**changes)


def pixels(uri):
    kind, data = uri.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_strip_holds_image_label_and_every_score_side_by_side(rng):
    one = example(rng)
    assert maps.columns(one) == ["image", "label", "id", "lr"]
    picture = pixels(maps.strip(one, maps.score_limits([one])))
    assert picture.shape == (30, 4 * 40 + 3 * maps.GAP, 3)
    image, label, _, lr = (picture[:, i * (40 + maps.GAP) :][:, :40] for i in range(4))
    np.testing.assert_array_equal(image, one.image)
    np.testing.assert_array_equal(label[10, 20], maps.ORANGE)
    np.testing.assert_array_equal(label[0, 20], [128] * 3)
    np.testing.assert_array_equal(label[20, 5], (one.image[20, 5].astype(int) + 255) // 2)
    bright = lr.astype(int).sum(-1)
    assert bright[one.label == 1].min() > bright[one.label == 0].max() + 300


def test_strip_is_shrunk_to_thumbnails_that_keep_means_and_labels(rng):
    flat = np.full((60, 80), 2.0)
    flat[:, ::2] = 4.0  # every pair of columns has the mean 3
    one = example(rng, 60, 80, scores={"lr": flat})
    picture = pixels(maps.strip(one, {"lr": (2.0, 4.0)}, width=40))
    assert picture.shape == (30, 3 * 40 + 2 * maps.GAP, 3)
    np.testing.assert_array_equal(picture[:, -40:], maps.colour_map(np.full((30, 40), 3.0), 2.0, 4.0))
    orange = np.all(picture[:, 40 + maps.GAP :][:, :40] == maps.ORANGE, axis=-1)
    np.testing.assert_array_equal(orange, one.label[::2, ::2] == 1)


def test_predicted_classes_are_drawn_where_given(rng):
    one = example(rng, classes=np.arange(1200).reshape(30, 40) // 400)
    assert maps.columns(one) == ["image", "label", "classes", "id", "lr"]
    drawn = pixels(maps.strip(one, maps.score_limits([one])))[:, 2 * (40 + maps.GAP) :][:, :40]
    want = 0.4 * one.image + 0.6 * maps.class_colours(3)[one.classes]
    np.testing.assert_allclose(drawn, want, atol=1)
    ignored = maps.class_overlay(one.image, np.full((30, 40), 255))
    np.testing.assert_array_equal(ignored, one.image)


def test_class_colours_are_distinct():
    colours = maps.class_colours(19).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(19, dtype=int)
    assert apart.min() > 25


def test_limits_are_percentiles_over_all_examples(rng):
    ramp = np.arange(1200.0).reshape(30, 40)
    pair = [example(rng, scores={"lr": ramp}), example(rng, scores={"lr": ramp + 1200})]
    low, high = maps.score_limits(pair)["lr"]
    assert (low, high) == pytest.approx((0.01 * 2399, 0.99 * 2399))


def test_infinite_scores_take_the_ends_of_the_colours(rng):
    ramp = np.where(np.arange(1200.0).reshape(30, 40) < 600, 1.0, 2.0)
    ramp[0, 0], ramp[0, 1] = np.inf, -np.inf
    one = example(rng, scores={"lr": ramp})
    assert maps.score_limits([one]) == {"lr": (1.0, 2.0)}
    drawn = pixels(maps.strip(one, {"lr": (1.0, 2.0)}))[:, -40:]
    np.testing.assert_array_equal(drawn[0, 0], drawn[29, 0])
    np.testing.assert_array_equal(drawn[0, 1], drawn[0, 2])


def test_colours_rise_with_the_score_and_stop_at_the_limits():
    row = maps.colour_map(np.array([[-9.0, 0.0, 0.3, 0.6, 1.0, np.inf]]), 0.0, 1.0).astype(int).sum(-1)[0]
    assert row[0] == row[1] < row[2] < row[3] < row[4] == row[5]
    constant = maps.colour_map(np.full((2, 2), 3.0), 3.0, 3.0)
    assert (constant == constant[0, 0]).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image": np.zeros((30, 40), np.uint8)}, "image must have shape"),
        ({"label": np.zeros((40, 30), np.uint8)}, r"label of 'scene <1>' must have shape \[30, 40\]"),
        ({"scores": {"lr": np.zeros((15, 20))}}, r"scores\['lr'\] of 'scene <1>' must have shape"),
        ({"scores": {"lr": np.full((30, 40), np.nan)}}, "must not be NaN"),
        ({"classes": np.zeros((15, 20), int)}, "classes of 'scene <1>' must have shape"),
    ],
)
def test_maps_that_do_not_fit_are_named(rng, change, named):
    with pytest.raises(ValueError, match=named):
        maps.score_limits([example(rng, **change)])
