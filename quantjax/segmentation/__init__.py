"""A segmentor, and beside it the module that estimates what it does not know: composed, trained, scored."""

from quantjax.segmentation.heads import DenseHead, gmm_head, linear_head
from quantjax.segmentation.network import (
    Estimator,
    EstimatorOutput,
    FrozenSegmentor,
    Segmentor,
    SegmentorOutput,
    estimate,
    frozen,
    init_estimator,
    init_segmentor,
    last_map,
    segment,
)
from quantjax.segmentation.objectives import (
    Scales,
    estimator_objective,
    join_segmentor,
    segmentor_objective,
    split_segmentor,
    with_statistics,
)

__all__ = [
    "DenseHead",
    "Estimator",
    "EstimatorOutput",
    "FrozenSegmentor",
    "Scales",
    "Segmentor",
    "SegmentorOutput",
    "estimate",
    "estimator_objective",
    "frozen",
    "gmm_head",
    "init_estimator",
    "init_segmentor",
    "join_segmentor",
    "last_map",
    "linear_head",
    "segment",
    "segmentor_objective",
    "split_segmentor",
    "with_statistics",
]
