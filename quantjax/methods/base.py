"""What an outlier method is: one value that says what it reads, how it is fitted and scores, where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from quantjax.scores import LinearHead
from quantjax.types import Array, ClassifierOutput, PyTree

ROWS_AT_ONCE = 8192  # of `blocks`

Settings = Mapping[str, Any]
Input = Literal["logits", "features", "layers", "maps", "images"]
Classify = Callable[[Array], ClassifierOutput]


class View(NamedTuple):
    """What a score may look at; of `output` it reads the parts that its method names."""

    output: ClassifierOutput
    """classify(images): logits [B, K], features [B, D], named maps."""
    images: Array | None = None
    """[B, H, W, C] standardised; None unless the method reads images."""
    classify: Classify | None = None
    """Standardised images [B, H, W, C] -> ClassifierOutput, in evaluation mode; None unless the method reads images."""
    std: tuple[float, ...] = (1.0,)
    """Of the standardisation, one per channel or one for all, in units of pixels in [0, 1]."""
    layers: Mapping[str, Array] | None = None
    """{name of a map: [B, 2 C]}, see extractors.layer_statistics; None unless the method reads layers."""


class TrainingRows(NamedTuple):
    """Inliers that a method is fitted to."""

    features: np.ndarray | None
    """[N, D] float32; None where a method learns nothing from them."""
    labels: np.ndarray | None
    """[N] integers in 0..K-1; None where a method learns nothing from them."""
    num_classes: int
    """K."""
    logits: np.ndarray | None = None
    """[N, K] float32; None where a method learns nothing from them."""
    head: LinearHead | None = None
    """The network's last layer; None: methods that read it find it from features and logits, see scores.solve_head."""
    layers: Mapping[str, np.ndarray] | None = None
    """{name of a map: [N, 2 C]}, see extractors.layer_statistics; None where a method learns nothing from them."""


def blocks(rows: TrainingRows) -> Iterator[TrainingRows]:
    """The rows a part after the other, so that no device has to hold them all."""
    arrays = {"features": rows.features, "labels": rows.labels, "logits": rows.logits, "layers": rows.layers}
    for start in range(0, len(jax.tree.leaves(arrays)[0]), ROWS_AT_ONCE):
        yield rows._replace(**jax.tree.map(itemgetter(slice(start, start + ROWS_AT_ONCE)), arrays))


class Fitted(NamedTuple):
    """What fitting gives: all that scoring needs beside the rows."""

    settings: Settings
    """Of the score, plain JSON values."""
    params: PyTree
    """Arrays."""


class Fit(Protocol):
    """Fit a method to inliers."""

    def __call__(self, rows: TrainingRows, settings: Settings) -> Fitted:
        """`settings` has every key of the method's defaults. Raises ValueError for rows it cannot be fitted to."""
        ...


class Join(Protocol):
    """Fit a sum of methods to inliers that its parts are fitted to."""

    def __call__(self, rows: TrainingRows, fitted: Sequence[Fitted], /) -> Fitted:
        """`fitted` are the parts, in order."""
        ...


class Score(Protocol):
    """Score rows, each by itself."""

    def __call__(self, settings: Settings, params: PyTree, view: View) -> Array:
        """Return [B] float32, higher = more outlying, NaN for a row that holds NaN."""
        ...


class Template(Protocol):
    """The shapes of a method's fitted parameters."""

    def __call__(self, settings: Settings, dimension: int, num_classes: int) -> PyTree:
        """jax.ShapeDtypeStruct leaves for features [., D] and K classes; a length of types.ANY is left open."""
        ...


def nothing_to_fit(rows: TrainingRows, settings: Settings) -> Fitted:
    """The fit of a method without parameters."""
    del rows
    return Fitted(settings, ())


def no_arrays(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    """The template of a method without parameters."""
    del settings, dimension, num_classes
    return ()


class Method(NamedTuple):
    """An outlier method as pure functions and the words that tables and files need."""

    name: str
    """What flags, files and tables call it."""
    paper: str
    """Authors, venue, equation."""
    reads: tuple[Input, ...]
    """What the score reads of a row; "images" and "maps" need the network itself, not only its cached output."""
    score: Score
    """Higher = more outlying; the settings are those that `fit` returned."""
    defaults: Settings = MappingProxyType({})
    """Every setting that `fit` takes, plain JSON values."""
    source: str = ""
    """Where the defaults come from."""
    learns_from: tuple[str, ...] = ()
    """Fields of TrainingRows that `fit` reads; none for a method without parameters."""
    fit: Fit = nothing_to_fit
    """Inliers -> settings of the score and parameters."""
    parts: tuple[str, ...] = ()
    """Of a sum of methods, their names."""
    join: Join | None = None
    """Of a sum: what `fit` does with its parts once they are fitted, for those who have fitted them already."""
    template: Template = no_arrays
    """Shapes of the parameters."""
    least_rows: Callable[[Settings], int] = lambda settings: 1
    """How many training rows `fit` needs with these settings."""
    least_rows_of_a_class: Callable[[Settings], int] = lambda settings: 1
    """How many of them each class must have; read where `fit` learns from labels."""
    score_settings: tuple[str, ...] | None = None
    """Names of the settings that `score` takes; None: those of the defaults."""


def named(family: Sequence[Method], name: str) -> Method:
    """The method of that name among those of one file, which the registry does not hold yet."""
    return next(method for method in family if method.name == name)


def needs_network(method: Method) -> bool:
    """Whether a row's logits and features do not suffice to score it."""
    return bool({"images", "maps"} & set(method.reads))


def complete_settings(method: Method, given: Settings | None) -> dict[str, Any]:
    """The defaults with `given` in their place; raises ValueError for a setting that the method's fit does not have."""
    given = {} if given is None else given
    _check_known(method, given, tuple(method.defaults))
    return {**method.defaults, **given}


def check_settings(method: Method, settings: Settings) -> None:
    """Raise ValueError when `settings`, of the score, hold one that the method's score does not take."""
    known = tuple(method.defaults) if method.score_settings is None else method.score_settings
    _check_known(method, settings, known)


def check_rows(method: Method, rows: int, of_classes: Sequence[int] = ()) -> None:
    """Raise ValueError when `rows` training rows are too few for the method with its defaults.

    `of_classes` [K] are the rows of each class, where they are known.
    """
    way_out = "give more of them, or leave the method out"
    needed = method.least_rows(method.defaults) if method.learns_from else 0
    if rows < needed:
        raise ValueError(f"method {method.name} needs at least {needed} training rows, got {rows}; {way_out}")
    needed = method.least_rows_of_a_class(method.defaults) if "labels" in method.learns_from else 0
    for label, count in enumerate(of_classes):
        if count < needed:
            raise ValueError(
                f"method {method.name} needs at least {needed} training rows of each class, got {count} of class "
                f"{label}; {way_out}"
            )


def _check_known(method: Method, settings: Settings, known: tuple[str, ...]) -> None:
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise ValueError(
            f"method {method.name} has no setting {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(known) if known else 'none'}"
        )
