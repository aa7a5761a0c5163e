"""A classifier trained from images that lie on the device: objective, optimiser, epochs (QuantOD, stage 1)."""

from quantjax.classification.training import augmented_rows, cross_entropy_objective, fit_classifier, sgd

__all__ = ["augmented_rows", "cross_entropy_objective", "fit_classifier", "sgd"]
