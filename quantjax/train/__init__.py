"""Training as pure functions: one step, a compiled epoch over resident data, a loop that can be killed and resumed."""

from quantjax.train.loop import file_order, fit, make_epoch, shuffled_order
from quantjax.train.step import TrainState, init_state, make_step, objective

__all__ = ["TrainState", "file_order", "fit", "init_state", "make_epoch", "make_step", "objective", "shuffled_order"]
