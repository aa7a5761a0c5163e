"""Image data sets, from files to uint8 arrays: images with one label, and street scenes with one per pixel.

- `sources`  names and paths -> random-access sources: `open_source("cifar10", data_dir, split="train")`
- `readers`  the sources themselves: CIFAR pickles, SVHN .mat, .npz, prepared TFDS sets; `folders` of images
- `image_lists`  text files that list images; `openood` which of them make up a benchmark of OpenOOD
- `places`   where a set or a path is looked for, under data_dir first
- `listing`  which files a folder holds: for every reader; `labels` which values are class numbers
- `tables`   features and labels in .npy, .npz, .pt, .safetensors, HDF5 and Parquet
- `pickles`  a restricted unpickler
- `images`   one image file -> uint8 RGB; resize and centre crop
- `arrays`   a source -> arrays; fingerprints, splits, subsets; `streamed` decodes what memory does not hold
- `ahead`    work that threads do in advance
- `augment`  random flip and crop, in JAX

Street scenes and what is pasted into them:

- `scenes`   names -> scenes: `open_scenes("camvid", data_dir, "train", height=240)`
- `driving`  the readers: CamVid, Cityscapes, RoadAnomaly, Fishyscapes, SegmentMeIfYouCan; `pairs` decodes and resizes
- `objects`  names and folders -> objects cut out by their masks: `open_objects("cutouts", data_dir, "train")`
- `cutouts`, `coco`  their sources
- `mix`      objects pasted into scenes, for training and as an evaluation set
- `loader`   endless training batches, decoded ahead; `resident` keeps decoded rows in memory
- `content`  a digest of everything that a source reads
- `jitter`   random flip and colour jitter, in JAX

A source yields {"image": uint8 [H, W, 3], "label": int} per row; label -1 means "has none". A scene has
"label": uint8 [H, W] and a "name", an object "mask": bool [h, w], "name" and "class_name". Importing this package
loads neither JAX nor Pillow: of `augment` and `jitter` nothing is exported here.
"""

from quantjax.data.arrays import fingerprint, half_split, load, paper_cap, same_source, subset
from quantjax.data.cutouts import Objects
from quantjax.data.images import fit, is_image_name, read_image
from quantjax.data.loader import training_batches
from quantjax.data.mix import PastedScenes, paste
from quantjax.data.objects import open_objects
from quantjax.data.pairs import Scenes
from quantjax.data.readers import ArraySource, Source
from quantjax.data.resident import Budget, keep_in_memory
from quantjax.data.scenes import open_scenes
from quantjax.data.sources import open_source
from quantjax.data.streamed import StreamedImages, rows_of, streamed
from quantjax.data.tables import read_features, read_labels
from quantjax.rows import ObjectRow, SceneRow

__all__ = [
    "ArraySource",
    "Budget",
    "ObjectRow",
    "Objects",
    "PastedScenes",
    "SceneRow",
    "Scenes",
    "Source",
    "StreamedImages",
    "fingerprint",
    "fit",
    "half_split",
    "is_image_name",
    "keep_in_memory",
    "load",
    "open_objects",
    "open_scenes",
    "open_source",
    "paper_cap",
    "paste",
    "read_features",
    "read_image",
    "read_labels",
    "rows_of",
    "same_source",
    "streamed",
    "subset",
    "training_batches",
]
