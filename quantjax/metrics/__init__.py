"""How well a score tells inliers from outliers: image-level rates, pooled pixels, components, and mIoU.

And what held-out inliers promise: thresholds, conformal p-values, tests of drift.
"""

from quantjax.documented import show_fields
from quantjax.metrics import components, pixels
from quantjax.metrics.components import ComponentCounts
from quantjax.metrics.conformal import calibrate_per_class, p_values, p_values_per_class
from quantjax.metrics.confusion import confusion_matrix, intersection_over_union, mean_iou
from quantjax.metrics.drift import DriftTest, Watch, drift_test, observe, watch
from quantjax.metrics.pixels import PixelCounts, pixel_metrics
from quantjax.metrics.rates import (
    Calibration,
    Roc,
    accuracy,
    aupr_trapezoid,
    auroc,
    average_precision,
    calibrate,
    fpr_at_tpr,
    inliers_needed,
    roc_curve,
    threshold_at_tpr,
)

__all__ = [
    "Calibration",
    "ComponentCounts",
    "DriftTest",
    "PixelCounts",
    "Roc",
    "Watch",
    "accuracy",
    "aupr_trapezoid",
    "auroc",
    "average_precision",
    "calibrate",
    "calibrate_per_class",
    "components",
    "confusion_matrix",
    "drift_test",
    "fpr_at_tpr",
    "inliers_needed",
    "intersection_over_union",
    "mean_iou",
    "observe",
    "p_values",
    "p_values_per_class",
    "pixel_metrics",
    "pixels",
    "roc_curve",
    "threshold_at_tpr",
    "watch",
]

show_fields(__name__)
