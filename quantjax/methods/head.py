"""Methods that read the weights of a classifier's last layer, or features and logits together.

The layer is `TrainingRows.head`, or is found from features and logits of the training rows: of any network whose logits
are an affine function of its features, and an error for others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax import scores
from quantjax.methods.base import Fitted, Input, Method, Settings, TrainingRows, View, no_arrays, nothing_to_fit
from quantjax.types import ANY, Array, PyTree

Prepared = tuple[scores.LinearHead, np.ndarray, np.ndarray]  # head, features, logits


def _prepare(rows: TrainingRows) -> Prepared:
    assert rows.features is not None
    assert rows.logits is not None
    head = scores.solve_head(rows.features, rows.logits) if rows.head is None else rows.head
    return head, rows.features, rows.logits


def _least_rows(settings: Settings) -> int:
    """One more than the unknowns of a logit; of features that vary in many directions there are more unknowns."""
    return 3


def _shape(*sizes: int) -> Any:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


# ---- energy of trimmed features, or of a trimmed head


def _head_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    return scores.LinearHead(_shape(dimension, num_classes), _shape(num_classes))


def _keep_head(rows: TrainingRows, settings: Settings) -> Fitted:
    return Fitted(settings, _prepare(rows)[0])


def _fit_react(rows: TrainingRows, settings: Settings) -> Fitted:
    head, features, _ = _prepare(rows)
    return Fitted({"threshold": scores.fit_react(features, settings["percentile"])}, head)


def _fit_dice(rows: TrainingRows, settings: Settings) -> Fitted:
    head, features, _ = _prepare(rows)
    return Fitted({}, scores.fit_dice(head, features, settings["sparsity"]))


def _on_head(score: Callable[..., Array]) -> Any:
    def method_score(settings: Settings, params: PyTree, view: View) -> Array:
        return score(params, view.output.features, **settings)

    return method_score


def _on_both(score: Callable[..., Array]) -> Any:
    def method_score(settings: Settings, params: PyTree, view: View) -> Array:
        return score(params, view.output.features, view.output.logits, **settings)

    return method_score


def _shaping(name: str, paper: str, percentile: float, source: str) -> Method:
    return Method(
        name,
        paper,
        ("features",),
        _on_head(getattr(scores, name)),
        defaults={"percentile": percentile},
        source=source,
        learns_from=("features", "logits"),
        least_rows=_least_rows,
        fit=_keep_head,
        template=_head_template,
    )


# ---- the subspace that training features do not reach


def _fit_residual(rows: TrainingRows, settings: Settings) -> Fitted:
    return Fitted({}, scores.fit_residual(*_prepare(rows), settings["principal"]))


def _residual_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    return scores.Residual(_shape(dimension), _shape(dimension, ANY), _shape())


# ---- boundaries, collapse, patterns, gradients


def _from_head(fit: Callable[[scores.LinearHead, np.ndarray], PyTree]) -> Any:
    def method_fit(rows: TrainingRows, settings: Settings) -> Fitted:
        head, features, _ = _prepare(rows)
        return Fitted(settings, fit(head, features))

    return method_fit


def _fdbd_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    return scores.Boundaries(_shape(dimension), _shape(num_classes, num_classes))


def _nci_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    return scores.Collapse(_shape(dimension), _shape(num_classes))


def _fit_she(rows: TrainingRows, settings: Settings) -> Fitted:
    assert rows.features is not None
    assert rows.labels is not None
    assert rows.logits is not None
    return Fitted(settings, scores.fit_she(rows.features, rows.labels, rows.logits))


def _she_template(settings: Settings, dimension: int, num_classes: int) -> PyTree:
    return _shape(num_classes, dimension)


def _gradnorm(settings: Settings, params: PyTree, view: View) -> Array:
    return scores.gradnorm(view.output.features, view.output.logits, **settings)


BOTH: tuple[Input, ...] = ("features", "logits")
ASH = "Djurisic et al., ICLR 2023, on pooled features"
RESNET = "the paper, for a ResNet-50 on ImageNet"

_VIM = Method(
    "vim",
    "Wang et al., CVPR 2022",
    BOTH,
    _on_both(scores.vim),
    defaults={"principal": None},
    source="the paper's principal dimension: 1,000 of 2,048 features and more, 512 of 768 and more; of fewer half",
    learns_from=BOTH,
    least_rows=_least_rows,
    fit=_fit_residual,
    template=_residual_template,
    score_settings=(),
)

METHODS = (
    _VIM,
    _VIM._replace(
        name="residual",
        paper="Wang et al., CVPR 2022, the residual alone",
        reads=("features",),
        score=_on_head(scores.residual),
    ),
    _shaping("react", "Sun, Guo and Li, NeurIPS 2021, on pooled features", 0.9, "the paper")._replace(
        fit=_fit_react, score_settings=("threshold",)
    ),
    _shaping("ash_p", f"{ASH}, pruned", 0.6, RESNET),
    _shaping("ash_b", f"{ASH}, made equal", 0.65, RESNET),
    _shaping("ash_s", f"{ASH}, scaled", 0.9, RESNET),
    _shaping("scale", "Xu et al., ICLR 2024, on pooled features", 0.85, RESNET),
    Method(
        "dice",
        "Sun and Li, ECCV 2022",
        ("features",),
        _on_head(scores.dice),
        defaults={"sparsity": 0.9},
        source="the paper, for CIFAR",
        learns_from=BOTH,
        least_rows=_least_rows,
        fit=_fit_dice,
        template=_head_template,
        score_settings=(),
    ),
    Method(
        "fdbd",
        "Liu and Qin, ICML 2024",
        BOTH,
        _on_both(scores.fdbd),
        learns_from=BOTH,
        least_rows=_least_rows,
        fit=_from_head(scores.fit_fdbd),
        template=_fdbd_template,
    ),
    Method(
        "nci",
        "Liu and Qin, CVPR 2025",
        BOTH,
        _on_both(scores.nci),
        defaults={"alpha": 0.0},
        source="pytorch-ood 0.4.0",
        learns_from=BOTH,
        least_rows=_least_rows,
        fit=_from_head(scores.fit_nci),
        template=_nci_template,
    ),
    Method(
        "she",
        "Zhang et al., ICLR 2023",
        BOTH,
        _on_both(scores.she),
        learns_from=("features", "labels", "logits"),
        fit=_fit_she,
        template=_she_template,
    ),
    Method(
        "gradnorm",
        "Huang, Geng and Li, NeurIPS 2021, of the last layer's weights",
        BOTH,
        _gradnorm,
        defaults={"temperature": 1.0},
        source="the paper",
        fit=nothing_to_fit,
        template=no_arrays,
    ),
)
