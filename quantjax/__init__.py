"""quantjax: tell known inputs from unknown ones.

The map of the house:

- `types`, `checks`, `rows`  named tuples, shape letters, argument checks; rows of scenes and objects
- `atomic`, `trees`        files and folders that are replaced whole; the names of arrays in files
- `markdown`, `documented` tables; help() of named tuples
- `gaussian`, `resize`     log-densities; maps of another size, by PyTorch's rules
- `dropout`                random bytes that say which entries stay
- `losses`, `scores`       training objectives; higher = more outlying
- `metrics`                rates of images, pixels and components
- `extractors`, `flows`    Flax Linen backbones and decoders; normalizing flows as tuples of pure functions, fitted
- `heads`, `segmentation`  linear and mixture heads; segmentor and unknown estimation module composed, trained, scored
- `convert`                foreign checkpoints -> our trees
- `data`, `bundled`        random-access sources, scenes, objects and their mix, augmentation; sets without download
- `train`                  step, loops over resident data and over streams, checkpoints
- `classification`         a classifier trained from images: objective, optimiser, epochs
- `parallel`, `inference`  the one place that compiles; padded batches, sliding windows
- `hosts`                  several processes as one run: joining them, what process 0 reads or decides for all
- `methods`                outlier methods by name, one open registry: python -m quantjax.methods lists them
- `patches`                such a method on the patches of a frozen backbone: unknown objects without training
- `detector`, `report`     fit, calibrate, keep and use a detector; result files

Importing this package starts no JAX backend.
"""

__version__ = "0.1.0"
