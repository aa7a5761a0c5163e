"""A classifier trained: a network from images that lie on the device (QuantOD, stage 1), a linear layer on features."""

from quantjax.classification.cost import training_seconds
from quantjax.classification.objectives import (
    CROSS_ENTROPY,
    OBJECTIVES,
    Objective,
    Seen,
    classifier_objective,
    cross_entropy_objective,
    energy_margin,
    of_logits,
    outlier_exposure,
    start_of,
    vos,
)
from quantjax.classification.probe import fit_probe
from quantjax.classification.training import (
    FINE_TUNING_EPOCHS,
    FINE_TUNING_RATE,
    augmented_rows,
    fit_classifier,
    sgd,
)

__all__ = [
    "CROSS_ENTROPY",
    "FINE_TUNING_EPOCHS",
    "FINE_TUNING_RATE",
    "OBJECTIVES",
    "Objective",
    "Seen",
    "augmented_rows",
    "classifier_objective",
    "cross_entropy_objective",
    "energy_margin",
    "fit_classifier",
    "fit_probe",
    "of_logits",
    "outlier_exposure",
    "sgd",
    "start_of",
    "training_seconds",
    "vos",
]
