"""Run a pure function over padded batches of rows, or over the sliding windows of an image."""

from quantjax.inference.batches import batched, bucketed, map_batches
from quantjax.inference.windows import sliding, starts

__all__ = ["batched", "bucketed", "map_batches", "sliding", "starts"]
