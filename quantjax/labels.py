"""Labels as compiled code takes them: what is no whole number of 32 bits must not pass for one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from quantjax.types import Array

NO_LABEL = -1


def int32_labels(labels: Any) -> Array:
    """Labels of any shape and real dtype as int32; fractions, NaN and what int32 cannot hold become -1, no label."""
    if not isinstance(labels, jax.Array):
        return jnp.asarray(_whole(np, np.asarray(labels)))
    return _whole(jnp, labels)


def _whole(xp: Any, labels: Any) -> Any:
    if xp.issubdtype(labels.dtype, xp.integer) or labels.dtype == bool:
        small = labels.dtype.itemsize < 4 or labels.dtype == np.int32
        held = xp.ones(labels.shape, bool) if small else (labels >= -(2**31)) & (labels < 2**31)
    else:
        held = (labels == xp.floor(labels)) & (xp.abs(labels) < 2**31)
    return xp.where(held, xp.where(held, labels, xp.zeros_like(labels)).astype(np.int32), np.int32(NO_LABEL))
