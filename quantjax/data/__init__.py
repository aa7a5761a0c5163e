"""Image data sets, from files to uint8 arrays.

- `sources`  names and paths -> random-access sources: `open_source("cifar10", data_dir, split="train")`
- `readers`  the sources themselves: CIFAR pickles, SVHN .mat, image folders, .npz, prepared TFDS sets
- `pickles`  a restricted unpickler
- `images`   one image file -> uint8 RGB; resize and centre crop
- `batches`  a source -> arrays; fingerprints, splits, subsets
- `augment`  random flip and crop, in JAX
- `bundled`  sets that need no download

A source yields {"image": uint8 [H, W, 3], "label": int} per row; label -1 means "has none". Importing this package
loads neither JAX nor Pillow.
"""
