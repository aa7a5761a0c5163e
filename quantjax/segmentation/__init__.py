"""A segmentor, and beside it the module that estimates what it does not know: backbone, decoder and heads composed."""

from quantjax.segmentation.heads import DenseHead, gmm_head, linear_head
from quantjax.segmentation.network import (
    Estimator,
    EstimatorOutput,
    Segmentor,
    SegmentorOutput,
    estimate,
    init_estimator,
    init_segmentor,
    last_map,
    segment,
)

__all__ = [
    "DenseHead",
    "Estimator",
    "EstimatorOutput",
    "Segmentor",
    "SegmentorOutput",
    "estimate",
    "gmm_head",
    "init_estimator",
    "init_segmentor",
    "last_map",
    "linear_head",
    "segment",
]
