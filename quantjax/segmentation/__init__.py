"""A segmentor, and beside it the module that estimates what it does not know: composed, trained, scored."""

from quantjax.documented import show_fields
from quantjax.segmentation.build import UNKNOWN_CLASSES, dense_head, make_estimator, make_segmentor
from quantjax.segmentation.evaluation import Evaluated, SceneRates, evaluate, mean_iou, scene_rates
from quantjax.segmentation.fine_tuning import FINE_TUNINGS, FineTuning, fine_tune
from quantjax.segmentation.heads import DenseHead, gmm_head, linear_head, without_memory
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
)
from quantjax.segmentation.scoring import PREDICTION, SCORES, Score, Scorer, make_scorer
from quantjax.segmentation.training import (
    FittedEstimator,
    adam,
    fit_estimator,
    fit_scale,
    fit_segmentor,
    start_estimator,
)

__all__ = [
    "FINE_TUNINGS",
    "PREDICTION",
    "SCORES",
    "UNKNOWN_CLASSES",
    "DenseHead",
    "Estimator",
    "EstimatorOutput",
    "Evaluated",
    "FineTuning",
    "FittedEstimator",
    "FrozenSegmentor",
    "Scales",
    "SceneRates",
    "Score",
    "Scorer",
    "Segmentor",
    "SegmentorOutput",
    "adam",
    "dense_head",
    "estimate",
    "estimator_objective",
    "evaluate",
    "fine_tune",
    "fit_estimator",
    "fit_scale",
    "fit_segmentor",
    "frozen",
    "gmm_head",
    "init_estimator",
    "init_segmentor",
    "join_segmentor",
    "last_map",
    "linear_head",
    "make_estimator",
    "make_scorer",
    "make_segmentor",
    "mean_iou",
    "scene_rates",
    "segment",
    "segmentor_objective",
    "split_segmentor",
    "start_estimator",
    "without_memory",
]

show_fields(__name__)
