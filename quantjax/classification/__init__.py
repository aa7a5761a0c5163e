"""A classifier trained: a network from images that lie on the device (QuantOD, stage 1), a linear layer on features."""

from quantjax.classification.cost import training_seconds
from quantjax.classification.probe import fit_probe
from quantjax.classification.training import augmented_rows, cross_entropy_objective, fit_classifier, sgd

__all__ = ["augmented_rows", "cross_entropy_objective", "fit_classifier", "fit_probe", "sgd", "training_seconds"]
