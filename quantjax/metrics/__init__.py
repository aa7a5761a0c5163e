"""How well a score tells inliers from outliers: image-level rates, pooled pixels, components, and mIoU."""

from quantjax.documented import show_fields
from quantjax.metrics import components, pixels
from quantjax.metrics.components import ComponentCounts
from quantjax.metrics.confusion import confusion_matrix, intersection_over_union, mean_iou
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
    "PixelCounts",
    "Roc",
    "accuracy",
    "aupr_trapezoid",
    "auroc",
    "average_precision",
    "calibrate",
    "components",
    "confusion_matrix",
    "fpr_at_tpr",
    "inliers_needed",
    "intersection_over_union",
    "mean_iou",
    "pixel_metrics",
    "pixels",
    "roc_curve",
    "threshold_at_tpr",
]

show_fields(__name__)
