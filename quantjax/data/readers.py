"""Random-access sources over the layouts that image data sets are published in.

Every source has `__len__` and `__getitem__(i) -> {"image": uint8 [H, W, 3], "label": int}`, which is what
`grain.MapDataset.source` takes. Sources that hold their pixels in memory also show them as `images` and `labels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, TypedDict

import numpy as np

from quantjax.data.images import read_image, to_rgb
from quantjax.data.labels import whole_labels
from quantjax.data.matlab import read_mat
from quantjax.data.pickles import read_pickle

NO_LABEL = -1


class Row(TypedDict):
    """One image with its class."""

    image: np.ndarray
    """[H, W, 3] uint8"""
    label: int
    """0..K-1, or NO_LABEL"""


class Source(Protocol):
    """What every reader returns and every consumer takes."""

    def __len__(self) -> int:
        """N, the number of rows."""
        ...

    def __getitem__(self, index: SupportsIndex, /) -> Row:
        """Row `index`, decoded."""
        ...


class ArraySource:
    """Images in memory: uint8 [N, H, W, 3] or [N, H, W] (grey), labels [N] or none, class names if known."""

    def __init__(self, images: np.ndarray, labels: Any = None, class_names: Sequence[str] = ()):
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise ValueError(
                f"images must be uint8 [N, H, W] or [N, H, W, C], got {images.dtype} {list(images.shape)}; "
                "scale to 0..255 and convert with .astype('uint8')"
            )
        self.images = images
        self.class_names = tuple(class_names)
        self.labels = np.full(len(images), NO_LABEL, np.int32) if labels is None else whole_labels(labels)
        if len(self.labels) != len(images):
            raise ValueError(f"labels must have one entry per image, got {len(self.labels)} for {len(images)} images")

    def __len__(self) -> int:
        """N, the number of rows."""
        return len(self.images)

    def __getitem__(self, index: SupportsIndex) -> Row:
        """Row `index` as RGB."""
        return {"image": to_rgb(self.images[index]), "label": int(self.labels[index])}


class FileSource:
    """Images in files, decoded when asked for; upright as in `images.read_image`."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        upright: bool = True,
    ):
        self.paths, self.upright = list(paths), upright
        self.labels = np.full(len(self.paths), NO_LABEL, np.int32) if labels is None else np.asarray(labels, np.int32)
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        """N, the number of files."""
        return len(self.paths)

    def __getitem__(self, index: SupportsIndex) -> Row:
        """Decode file `index`."""
        image = read_image(self.paths[index], upright=self.upright)
        return {"image": image, "label": int(self.labels[index])}


class TfdsSource:
    """A prepared TFDS data set of labelled images; `records` is what `tfds.data_source` returns."""

    def __init__(self, records: Sequence[Any] | Chosen):
        self.records = records

    def __len__(self) -> int:
        """N, the number of records."""
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> Row:
        """Decode record `index`."""
        record = self.records[index.__index__()]
        return {"image": to_rgb(record["image"]), "label": int(record.get("label", NO_LABEL))}


class Chosen:
    """Some rows of a sequence, by their indices [N]; nothing is read before it is asked for."""

    def __init__(self, rows: Sequence[Any] | Chosen, indices: np.ndarray):
        self.rows, self.indices = rows, np.asarray(indices)

    def __len__(self) -> int:
        """N, the number of chosen rows."""
        return len(self.indices)

    def __getitem__(self, index: SupportsIndex) -> Any:
        """The row that chosen row `index` is."""
        return self.rows[int(self.indices[index])]


def part(source: Source, rows: np.ndarray) -> Source:
    """The rows of a source made here, indices [N], in their order."""
    if isinstance(source, ArraySource):
        return ArraySource(source.images[rows], source.labels[rows], source.class_names)
    if isinstance(source, FileSource):
        paths = [source.paths[i] for i in rows]
        return FileSource(paths, source.labels[rows].tolist(), source.class_names, upright=source.upright)
    assert isinstance(source, TfdsSource)
    return TfdsSource(Chosen(source.records, rows))


def cifar10(folder: Path, split: str) -> ArraySource:
    """The folder `cifar-10-batches-py` of the published python archive (Krizhevsky 2009), in file order."""
    names = [f"data_batch_{k}" for k in range(1, 6)] if split == "train" else ["test_batch"]
    return _cifar([folder / name for name in names], b"labels", folder / "batches.meta", b"label_names")


def cifar100(folder: Path, split: str) -> ArraySource:
    """The folder `cifar-100-python` of the published python archive (Krizhevsky 2009), fine labels."""
    return _cifar([folder / split], b"fine_labels", folder / "meta", b"fine_label_names")


def _cifar(files: Sequence[Path], label_key: bytes, about: Path, names_key: bytes) -> ArraySource:
    parts = [_cifar_part(file, label_key) for file in files]
    images, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    content = read_pickle(about) if about.is_file() else {}
    names = content.get(names_key, []) if isinstance(content, dict) else []
    return ArraySource(images, labels, [name.decode(errors="replace") for name in names if isinstance(name, bytes)])


def _cifar_part(file: Path, label_key: bytes) -> tuple[np.ndarray, np.ndarray]:
    content = read_pickle(file)
    if not isinstance(content, dict) or b"data" not in content or label_key not in content:
        raise ValueError(f"{file} has no entries 'data' and {label_key.decode()!r}; it is not a CIFAR python batch")
    data, labels = np.asarray(content[b"data"]), np.asarray(content[label_key])
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072 or labels.shape != (len(data),):
        raise ValueError(
            f"{file} must hold data uint8 [N, 3072] and labels [N], "
            f"got {data.dtype} {list(data.shape)} and {list(labels.shape)}; download it again"
        )
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def svhn(folder: Path, split: str) -> ArraySource:
    """`{split}_32x32.mat` of the cropped-digits format (Netzer et al. 2011); the label 10 there is the digit 0."""
    file = folder / f"{split}_32x32.mat"
    content = read_mat(file, ("X", "y"))
    images, labels = content["X"], content["y"]
    if images.ndim != 4 or images.dtype != np.uint8 or labels.size != images.shape[3]:
        raise ValueError(
            f"{file} must hold X uint8 [H, W, 3, N] and y [N, 1], got {images.dtype} {list(images.shape)} and "
            f"{list(labels.shape)}; download it again"
        )
    try:
        labels = whole_labels(labels.reshape(-1))
    except ValueError as error:
        raise ValueError(f"{file}, y: {error}") from None
    return ArraySource(np.ascontiguousarray(images.transpose(3, 0, 1, 2)), np.where(labels == 10, 0, labels))


def npz(file: Path, split: str = "test") -> ArraySource:
    """Entries `{split}_images` uint8 [N, H, W(, C)] and, if any, `{split}_labels` [N].

    Plain `images` and `labels` are a test set.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            prefix = "" if split == "test" and "test_images" not in archive else f"{split}_"
            if f"{prefix}images" not in archive:
                raise ValueError(f"no entry '{prefix}images', only {', '.join(archive)}")
            return ArraySource(archive[f"{prefix}images"], archive.get(f"{prefix}labels"))
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise ValueError(f"{file} cannot be read as images: {error}") from error


def npz_splits(file: Path) -> tuple[str, ...]:
    """The splits that `npz` finds in a file; none when it cannot be read, of which `npz` says why."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            plain = ("test",) if "images" in archive and "test_images" not in archive else ()
            return *(split for split in ("train", "test") if f"{split}_images" in archive), *plain
    except Exception:
        return ()


def tfds(name: str, data_dir: Path | None, split: str) -> TfdsSource:
    """A data set that TFDS prepared as array_record, with the features `image` and, optionally, `label`.

    Reading needs no TensorFlow; preparing does (the `tensorflow` extra).

    Raises:
        FileNotFoundError: it is not prepared in that format; the message says the command that does it.
        ValueError: it has no such split, or no images.
    """
    import tensorflow_datasets

    where = str(data_dir) if data_dir else None
    try:
        records = tensorflow_datasets.data_source(name, split=split, data_dir=where, download=False)
    except ImportError:
        raise
    except Exception as error:  # not registered, not prepared, prepared in another format: each has its own kind
        if splits := tfds_splits(name, data_dir):
            raise ValueError(f"tfds:{name} has no split {split!r}, only {', '.join(splits)}") from error
        raise FileNotFoundError(_how_to_prepare(name, where, str(error))) from error
    if len(records) and "image" not in records[0]:
        raise ValueError(f"tfds:{name} has no feature 'image', only {', '.join(records[0])}; it is no image data set")
    if len(records) and (
        np.ndim(label := records[0].get("label", NO_LABEL)) or np.asarray(label).dtype.kind not in "iu"
    ):
        raise ValueError(
            f"tfds:{name} must have one class number as 'label', got {np.asarray(label)!r}; name another set"
        )
    return TfdsSource(records)


def tfds_splits(name: str, data_dir: Path | None) -> tuple[str, ...]:
    """The splits that TFDS prepared in a random-access format; none when the set is not prepared so."""
    import tensorflow_datasets

    try:
        builder = tensorflow_datasets.builder(name, data_dir=str(data_dir) if data_dir else None)
        builder.as_data_source()
    except Exception:
        return ()
    return tuple(builder.info.splits)


def tfds_labels(name: str, data_dir: Path | None, split: str) -> np.ndarray:
    """Labels [N] of a split that `tfds` reads, NO_LABEL where it has none; its images stay undecoded."""
    import tensorflow_datasets

    records = tensorflow_datasets.data_source(
        name,
        split=split,
        data_dir=str(data_dir) if data_dir else None,
        download=False,
        decoders={"image": tensorflow_datasets.decode.SkipDecoding()},
    )
    return np.asarray([records[i].get("label", NO_LABEL) for i in range(len(records))], np.int32)


def _how_to_prepare(name: str, where: str | None, reason: str) -> str:
    command = f"tfds build {name} --file_format=array_record" + (f" --data_dir={where}" if where else "")
    return (
        f"TFDS has no array_record preparation of {name!r} in {where or 'its default folder'} "
        f"({reason.strip().partition(chr(10))[0]}). Prepare it once, with TensorFlow installed: {command}"
    )
