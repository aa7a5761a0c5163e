"""Outlier methods by name: what each reads, how it is fitted and scores, where it comes from; one open registry.

from quantjax import methods
methods.get("knn")            # a Method
methods.register(Method(...)) # one of your own, known from then on to detectors, commands and tables
methods.register(methods.combine("energy", "knn"))  # the sum of two, called energy_knn
"""

from quantjax.documented import show_fields
from quantjax.methods import combined, flow, gaussian, head, layers, logits, neighbours, perturbed, subspace
from quantjax.methods.base import (
    Fitted,
    Method,
    Settings,
    TrainingRows,
    View,
    check_rows,
    check_settings,
    complete_settings,
    needs_network,
)
from quantjax.methods.combined import combine
from quantjax.methods.layers import on_layers
from quantjax.methods.perturbed import perturbed as perturbed_form
from quantjax.methods.registry import get, names, register, unregister
from quantjax.methods.table import to_markdown

for _family in (flow, logits, perturbed, gaussian, neighbours, subspace, layers, head, combined):
    for _method in _family.METHODS:
        register(_method)

__all__ = [
    "Fitted",
    "Method",
    "Settings",
    "TrainingRows",
    "View",
    "check_rows",
    "check_settings",
    "combine",
    "complete_settings",
    "get",
    "names",
    "needs_network",
    "on_layers",
    "perturbed_form",
    "register",
    "to_markdown",
    "unregister",
]

show_fields(__name__)
