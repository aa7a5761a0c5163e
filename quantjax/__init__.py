"""quantjax: tell known inputs from unknown ones.

The map of the house:

- `types`, `checks`        named tuples, shape letters, argument checks
- `gaussian`, `losses`     log-densities, training objectives
- `scores`, `metrics`      higher = more outlying; image-level rates
- `extractors`, `flows`    Flax Linen backbones; normalizing flows as tuples of pure functions
- `convert`                foreign checkpoints -> our trees
- `data`                   random-access sources, augmentation, the bundled data sets
- `train`                  step, epoch loop, checkpoints
- `parallel`, `inference`  the one place that compiles; padded batches
- `detector`, `report`     a fitted detector as one artefact; result files

Importing this package starts no JAX backend.
"""

__version__ = "0.1.0"
