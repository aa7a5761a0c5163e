"""Heads of segmentors: what turns decoder maps or tokens into logits, one value per class.

`linear` and `projector` are Flax Linen modules. `gmm` is a set of pure functions: its means, deviations and memory
bank change by expectation maximisation, not by gradients, and travel as an explicit state outside the optimiser.
"""

from quantjax.documented import show_fields
from quantjax.heads.gmm import GmmOutput, GmmSettings, GmmState
from quantjax.heads.linear import LinearHead
from quantjax.heads.projector import Projector

__all__ = ["GmmOutput", "GmmSettings", "GmmState", "LinearHead", "Projector"]

show_fields(__name__)
