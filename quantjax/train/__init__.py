"""Training as pure functions: one step, a compiled epoch over resident data, a loop that can be killed and resumed."""

from quantjax.documented import show_fields
from quantjax.train.loop import Report, file_order, fit, make_epoch, shuffled_order
from quantjax.train.step import (
    Mean,
    TrainState,
    ValueAndGrad,
    accumulated,
    init_state,
    make_step,
    objective,
    objective_of_means,
)
from quantjax.train.stream import fit_stream

__all__ = [
    "Mean",
    "Report",
    "TrainState",
    "ValueAndGrad",
    "accumulated",
    "file_order",
    "fit",
    "fit_stream",
    "init_state",
    "make_epoch",
    "make_step",
    "objective",
    "objective_of_means",
    "shuffled_order",
]

show_fields(__name__)
