"""Every reader of the library beside a small valid input of its own."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

LABELLED = ("a.npz", "b.npz", "a.safetensors", "a.pt", "lists.parquet", "a.h5")  # one array of labels beside the rows
RNG = np.random.default_rng(5)


class Kind(NamedTuple):
    """One kind of input."""

    make: Callable[[Path], Sequence[Path]]
    """Write a valid input into an empty folder; the files to damage, one at a time."""
    read: Callable[[Path, Path], Any]
    """Read it (folder, damaged file), to the last value."""
    share: float
    """Of all inputs; expensive ones come less often."""
    seal: Callable[[Path], None] | None = None
    """Correct the digests after half of the damages, so that what lies behind them is read."""
    needs: str = ""
    """The package without which the kind is left out."""


def _noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


# ---- images and label maps


def _images(folder: Path) -> list[Path]:
    exif = Image.Exif()
    exif[0x0112] = 6
    colour, grey = Image.fromarray(_noise(7, 9, 3)), Image.fromarray(_noise(7, 9))
    colour.save(folder / "rgb.png", exif=exif)
    colour.quantize(16).save(folder / "palette.png", transparency=3)
    Image.fromarray(_noise(7, 9).astype(np.uint16) * 257).save(folder / "deep.png")
    colour.save(folder / "colour.jpg", exif=exif)
    colour.save(folder / "progressive.jpg", progressive=True)
    Image.fromarray(_noise(7, 9, 4), "CMYK").save(folder / "cmyk.jpg")
    colour.save(folder / "raw.tif")
    for name in ("tiff_lzw", "tiff_deflate", "jpeg"):
        colour.save(folder / f"{name}.tif", compression=name)
    Image.fromarray(RNG.random((7, 9)).astype(np.float32)).save(folder / "float.tiff")
    grey.convert("1").save(folder / "fax.tiff", compression="group4")
    colour.save(folder / "lossy.webp")
    colour.convert("RGBA").save(folder / "lossless.webp", lossless=True)
    colour.save(folder / "a.bmp")
    colour.quantize(16).save(folder / "a.gif", save_all=True, append_images=[colour.quantize(8)])
    colour.save(folder / "a.ppm")
    (folder / "plain.pgm").write_text("P2\n3 2\n255\n0 1 2\n3 4 255\n")
    if find_spec("PIL._avif"):
        colour.save(folder / "a.avif")
    return sorted(folder.iterdir())


def _read_image(folder: Path, file: Path) -> None:
    from quantjax.data.images import fit, read_image

    fit(read_image(file), 8)


def _label_maps(folder: Path) -> list[Path]:
    labels = RNG.integers(0, 11, (6, 8)).astype(np.uint8)
    Image.fromarray(labels).save(folder / "grey.png")
    Image.fromarray(labels).convert("P").save(folder / "palette.png")
    Image.fromarray(labels.astype(np.int32)).save(folder / "deep.tif")
    Image.fromarray(np.repeat(labels[..., None], 3, 2)).save(folder / "colour.png")
    return sorted(folder.iterdir())


def _read_label_map(folder: Path, file: Path) -> None:
    from quantjax.data.label_files import read_mask, read_values

    for read in (read_values, read_mask):
        read(file)


def _class_folders(folder: Path) -> list[Path]:
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(_noise(8, 8, 3)).save(folder / name / f"{i}.png")
    return sorted(folder.rglob("*.png"))


def _read_class_folders(folder: Path, file: Path) -> None:
    from quantjax.data.sources import open_source

    for split in ("train", "test"):
        source = open_source(folder, split=split)
        for i in range(len(source)):
            source[i]


def _image_list(folder: Path) -> list[Path]:
    for i in range(3):
        Image.fromarray(_noise(6, 6, 3)).save(folder / f"{i}.png")
    listed = folder / "list.txt"
    listed.write_text("".join(f"{i}.png {i - 1}\n" for i in range(3)))
    return [listed]


def _read_image_list(folder: Path, file: Path) -> None:
    from quantjax.data.sources import open_source

    source = open_source(file)
    for i in range(len(source)):
        source[i]


def _scenes(folder: Path) -> list[Path]:
    for part in ("frames", "frames/a.labels"):
        (folder / "RoadAnomaly" / part).mkdir(parents=True)
    Image.fromarray(_noise(8, 9, 3)).save(folder / "RoadAnomaly/frames/a.jpg")
    label = folder / "RoadAnomaly/frames/a.labels/labels_semantic.png"
    Image.fromarray(RNG.integers(0, 3, (8, 9)).astype(np.uint8)).save(label)
    listed = folder / "RoadAnomaly/frame_list.json"
    listed.write_text(json.dumps(["a.jpg"]))
    return [label, listed, folder / "RoadAnomaly/frames/a.jpg"]


def _read_scenes(folder: Path, file: Path) -> None:
    from quantjax.data.scenes import open_scenes

    scenes = open_scenes("road_anomaly", folder, "test", 4)
    for i in range(len(scenes)):
        scenes[i]


def _cutouts(folder: Path) -> list[Path]:
    image = _noise(9, 9, 4)
    image[2:6, 2:6, 3] = 255
    Image.fromarray(image).save(folder / "a_dog.png")
    Image.fromarray(image).save(folder / "b_cat.webp", lossless=True)
    return sorted(folder.iterdir())


def _read_cutouts(folder: Path, file: Path) -> None:
    from quantjax.data.cutouts import Cutouts

    Cutouts([file])[0]


# ---- arrays, tables, weights


def _npz_images(folder: Path) -> list[Path]:
    images, labels = _noise(4, 5, 5, 3), np.arange(4) % 2
    np.savez(folder / "plain.npz", images=images, labels=labels)
    np.savez_compressed(folder / "splits.npz", train_images=images, train_labels=labels, test_images=images)
    return sorted(folder.iterdir())


def _read_npz_images(folder: Path, file: Path) -> None:
    from quantjax.data.sources import open_source

    source = open_source(file, divide=True)
    for i in range(len(source)):
        source[i]


def _features(folder: Path) -> list[Path]:
    features, labels = RNG.normal(size=(5, 3)).astype(np.float32), np.arange(5)
    np.save(folder / "a.npy", features)
    np.savez(folder / "a.npz", features=features, labels=labels)
    np.savez_compressed(folder / "b.npz", features=features.astype(np.float16), labels=labels)
    from safetensors.numpy import save_file

    save_file({"features": features, "labels": labels}, folder / "a.safetensors")
    return sorted(folder.iterdir())


def _torch_features(folder: Path) -> list[Path]:
    import torch

    torch.save({"features": torch.ones(5, 3), "labels": torch.arange(5)}, folder / "a.pt")
    torch.save(torch.ones(5, 3, dtype=torch.bfloat16), folder / "old.pth", _use_new_zipfile_serialization=False)
    return sorted(folder.iterdir())


def _parquet(folder: Path) -> list[Path]:
    import pyarrow
    from pyarrow import parquet

    rows = RNG.normal(size=(5, 3))
    lists = pyarrow.table({"features": list(rows), "labels": list(range(5))})
    columns = pyarrow.table({**{f"f{i}": rows[:, i] for i in range(3)}, "labels": list(range(5))})
    parquet.write_table(lists, folder / "lists.parquet")
    parquet.write_table(columns, folder / "columns.parquet", compression="gzip")
    return sorted(folder.iterdir())


def _hdf5(folder: Path) -> list[Path]:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file["features"], file["labels"] = RNG.normal(size=(5, 3)), np.arange(5)
    return [folder / "a.h5"]


def _read_features(folder: Path, file: Path) -> None:
    from quantjax.data.tables import read_features, read_labels

    both = file.name in LABELLED
    _all(lambda: read_features(file), *([lambda: read_labels(file)] if both else []))


def _all(*reads: Callable[[], Any]) -> None:
    """Each is called; the first error that is none of ours goes before those that are."""
    errors: list[Exception] = []
    for read in reads:
        try:
            read()
        except Exception as error:
            errors.append(error)
    for error in sorted(errors, key=lambda error: isinstance(error, ValueError | OSError)):
        raise error


def _weights(folder: Path) -> list[Path]:
    from safetensors.numpy import save_file

    from quantjax.convert.files import write_safetensors

    arrays = {"module.conv.weight": RNG.normal(size=(2, 3)).astype(np.float32), "module.fc.bias": np.ones(2)}
    np.savez(folder / "a.npz", **arrays)
    save_file(arrays, folder / "a.safetensors", {"about": "{}"})
    write_safetensors(folder / "own.safetensors", {"params": {"a": np.ones((2, 3), np.float32)}}, {"about": "{}"})
    return sorted(folder.iterdir())


def _torch_weights(folder: Path) -> list[Path]:
    import torch

    arrays = {"module.conv.weight": torch.ones(2, 3), "module.fc.bias": torch.ones(2, dtype=torch.float16)}
    for name in ("a.pt", "a.pth", "a.bin", "a.th", "a.ckpt", "a.pth.tar"):
        content: Any = {"state_dict": arrays, "epoch": 3} if "c" in name else arrays
        torch.save(content, folder / name)
    torch.save(arrays, folder / "old.pth", _use_new_zipfile_serialization=False)
    return sorted(folder.iterdir())


def _read_weights(folder: Path, file: Path) -> None:
    from quantjax.convert.files import read_checkpoint, read_metadata

    reads = [lambda: read_checkpoint(file)]
    _all(*reads, *([lambda: read_metadata(file)] if file.suffix == ".safetensors" else []))


def _flow_weights(folder: Path) -> list[Path]:
    from quantjax.convert.flows import _expected_shapes
    from quantjax.flows.recipes import seeded_permutations

    options = {"kind": "glow", "dimension": 4, "blocks": 1, "layers": 0, "width": 3}
    arrays = {name: np.ones(shape, np.float32) for name, shape in _expected_shapes(options).items()}
    order = seeded_permutations(4, 1)[0]
    arrays |= {"module_list.1.perm": order, "module_list.1.perm_inv": np.argsort(order)}
    np.savez(folder / "flow.npz", **arrays)
    return [folder / "flow.npz"]


def _read_flow_weights(folder: Path, file: Path) -> None:
    from quantjax.convert.files import of_file, read_state_dict
    from quantjax.convert.flows import to_flow

    arrays = read_state_dict(file)
    with of_file(file):
        to_flow(arrays)


# ---- published data sets


def _matlab(folder: Path) -> list[Path]:
    from scipy.io import savemat

    content = {"X": _noise(4, 4, 3, 5), "y": np.arange(1, 6)[:, None].astype(np.uint8), "other": "text"}
    for name, compressed in (("train_32x32.mat", True), ("test_32x32.mat", False)):
        savemat(folder / name, content, do_compression=compressed)
    return sorted(folder.iterdir())


def _read_matlab(folder: Path, file: Path) -> None:
    from quantjax.data.readers import svhn

    svhn(folder, file.name.partition("_")[0])


def _cifar(folder: Path) -> list[Path]:
    batch = {b"data": _noise(3, 3072), b"labels": [0, 1, 2]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a", b"b", b"c"]}, protocol=2))
    return sorted(folder.iterdir())


def _read_cifar(folder: Path, file: Path) -> None:
    from quantjax.data.readers import cifar10

    cifar10(folder, "test")


def _coco(folder: Path) -> list[Path]:
    place = folder / "train2017"
    place.mkdir()
    (folder / "annotations").mkdir()
    square = [10, 10, 60, 10, 60, 60, 10, 60]
    outlines = [[square], {"counts": [480 * 10, 480 * 10, 480 * 460], "size": [480, 480]}]
    for key in (1, 2):
        Image.fromarray(np.full((480, 480), 9, np.uint8)).save(place / f"{key:012d}.png")
    content = {
        "images": [{"id": k, "file_name": f"{k:012d}.png", "height": 480, "width": 480} for k in (1, 2)],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 18, "segmentation": outlines[k - 1], "area": 2500.0} for k in (1, 2)
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    }
    file = folder / "annotations/instances_train2017.json"
    file.write_text(json.dumps(content))
    return [file]


def _read_coco(folder: Path, file: Path) -> None:
    from quantjax.data.coco import coco_objects

    objects = coco_objects(folder, "train", ("person",))
    for i in range(len(objects)):
        objects[i]


# ---- what the library writes itself


def _feature_detector(folder: Path) -> list[Path]:
    from quantjax import detector

    rows = RNG.normal(size=(40, 3)).astype(np.float32)
    fitted = detector.fit("mahalanobis", features=rows, labels=np.arange(40) % 2)
    detector.save(detector.calibrate(fitted, RNG.normal(size=(40, 3)).astype(np.float32)), folder / "detector")
    return sorted((folder / "detector").iterdir())


def _image_detector(folder: Path) -> list[Path]:
    from quantjax import detector

    def network(x: Any) -> tuple[Any, Any]:
        mean = x.mean((1, 2))
        return mean[:, :2], mean

    fitted = detector.fit("energy", network, _noise(4, 4, 4, 3))
    detector.save(fitted._replace(threshold=0.5, calibration={"source": "x", "n": 9}), folder / "detector")
    return sorted((folder / "detector").iterdir())


def _scene_detector(folder: Path) -> list[Path]:
    import jax
    import jax.numpy as jnp

    from quantjax import detector
    from quantjax.extractors import IMAGENET

    given = detector.SceneDetector(
        "vit_tiny_scratch", {}, 4, 8, (6,), None, None, {}, IMAGENET, ("a", "b"), (28, 28), (14, 14), 0.5,
        {"source": "x", "n": 9},
    )  # fmt: skip
    from quantjax.detector.scenes import template

    arrays = jax.tree.map(lambda leaf: jnp.ones([max(n, 1) for n in leaf.shape], leaf.dtype), template(given))
    detector.save(given._replace(variables=arrays), folder / "detector")
    return sorted((folder / "detector").iterdir())


def _read_detector(folder: Path, file: Path) -> None:
    from quantjax import detector

    detector.load(folder / "detector")


def _seal_detector(folder: Path) -> None:
    _seal(folder / "detector", "detector.json", {"arrays": "arrays.safetensors"})


def _seal(folder: Path, content: str, files: dict[str, str]) -> None:
    """Digests of damaged files, so that more than these is tried; held-out scores only where there are any."""
    files = {**files, "held_out": "held_out.safetensors"}
    there = {name: folder / file for name, file in files.items() if (folder / file).exists()}
    digests = {f"{name}_sha256": hashlib.sha256(file.read_bytes()).hexdigest() for name, file in there.items()}
    _replace_json(folder / content, **digests)


def _replace_json(file: Path, **values: Any) -> None:
    try:
        content = json.loads(file.read_bytes())
        file.write_text(json.dumps({**content, **values}))
    except (ValueError, TypeError, RecursionError):
        pass  # it is the JSON file that is damaged


def _exported(folder: Path) -> list[Path]:
    from quantjax import detector

    rows = RNG.normal(size=(40, 3)).astype(np.float32)
    fitted = detector.fit("mahalanobis", features=rows, labels=np.arange(40) % 2)
    fitted = detector.calibrate(fitted, RNG.normal(size=(40, 3)).astype(np.float32))
    detector.export(fitted, folder / "exported", platforms=("cpu",))
    return sorted((folder / "exported").iterdir())


def _read_exported(folder: Path, file: Path) -> None:
    from quantjax import detector

    detector.load_exported(folder / "exported")


def _run_exported(folder: Path, file: Path) -> None:
    from quantjax import detector

    detector.load_exported(folder / "exported").predictor.predict(np.zeros((2, 3), np.float32))


def _seal_exported(folder: Path) -> None:
    _seal(folder / "exported", "exported.json", {"program": "program.bin"})


def _state() -> Any:
    from quantjax.train.step import TrainState

    return TrainState({"w": np.arange(6, dtype=np.float32)}, {}, {"m": np.ones(3, np.float32)}, np.int32(1))


def _checkpoint(folder: Path) -> list[Path]:
    import jax

    from quantjax.train import checkpoint

    checkpoint.save(folder / "checkpoints", _state(), 1, jax.random.key(0))
    return sorted(file for file in (folder / "checkpoints").rglob("*") if file.is_file())


def _read_checkpoint(folder: Path, file: Path) -> None:
    from quantjax.train import checkpoint

    checkpoint.restore(folder / "checkpoints", _state())


def _segmentor(folder: Path) -> list[Path]:
    from experiments.scenes import storage

    about = {"backbone": "swin_b", "overrides": {"window": 7}, "preprocessing": {"mean": [0, 0, 0]}}
    storage.save(folder / "segmentor.safetensors", {"a": np.ones((2, 2), np.float32)}, about)
    return [folder / "segmentor.safetensors"]


def _read_segmentor(folder: Path, file: Path) -> None:
    from experiments.scenes import storage

    storage.load(file, {"a": np.ones((2, 2), np.float32)})


def _runs(folder: Path) -> list[Path]:
    from experiments.run_folder import begin_run

    begin_run(folder / "run", {"seed": 0}, {"seed": 0}, "x", overwrite=False)
    rates = {"fpr95": 1.0, "auroc": 99.0, "average_precision": 99.0}
    row = {"method": "msp", "outlier": "noise", **rates, "score_seconds": 1.0, "images_per_second": 1.0}
    content = {
        "schema": 1,
        "positive_class": "inlier",
        "rows": [row],
        "config": {"seed": 0},
        "seed": 0,
        "accuracy": 9.0,
    }
    (folder / "run" / "results.json").write_text(json.dumps(content))
    (folder / "run" / "metrics.jsonl").write_text(
        json.dumps({"stage": "flow", "epoch": 1, "fpr95": 3.0, "auroc": 9.0}) + "\n"
    )
    return sorted((folder / "run").iterdir())


def _read_runs(folder: Path, file: Path) -> None:
    from experiments.run_folder import find_run

    def tables() -> None:
        from contextlib import redirect_stderr, redirect_stdout

        from experiments.tables import main

        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
            status = main([str(folder / "run")])
        if status:
            raise ValueError(said.getvalue())

    _all(tables, lambda: find_run(folder, "run", {"seed": 0}, resume=True, overwrite=False))


KINDS: dict[str, Kind] = {
    "images": Kind(_images, _read_image, 10),
    "label maps": Kind(_label_maps, _read_label_map, 5),
    "class folders": Kind(_class_folders, _read_class_folders, 2),
    "image lists": Kind(_image_list, _read_image_list, 2),
    "scenes": Kind(_scenes, _read_scenes, 2),
    "cut-outs": Kind(_cutouts, _read_cutouts, 2),
    "COCO": Kind(_coco, _read_coco, 3),
    "CIFAR": Kind(_cifar, _read_cifar, 5),
    "MATLAB": Kind(_matlab, _read_matlab, 5),
    "images in .npz": Kind(_npz_images, _read_npz_images, 5),
    "features": Kind(_features, _read_features, 8),
    "features of torch": Kind(_torch_features, _read_features, 3, needs="torch"),
    "features in Parquet": Kind(_parquet, _read_features, 4, needs="pyarrow"),
    "features in HDF5": Kind(_hdf5, _read_features, 4, needs="h5py"),
    "weights": Kind(_weights, _read_weights, 8),
    "weights of torch": Kind(_torch_weights, _read_weights, 5, needs="torch"),
    "weights of flows": Kind(_flow_weights, _read_flow_weights, 2),
    "detectors of features": Kind(_feature_detector, _read_detector, 3, _seal_detector),
    "detectors of images": Kind(_image_detector, _read_detector, 1, _seal_detector),
    "detectors of scenes": Kind(_scene_detector, _read_detector, 1, _seal_detector),
    "exported programs": Kind(_exported, _read_exported, 2, _seal_exported),
    "exported programs, run": Kind(_exported, _run_exported, 0.1, _seal_exported),
    "checkpoints": Kind(_checkpoint, _read_checkpoint, 0.3),
    "segmentors": Kind(_segmentor, _read_segmentor, 3),
    "runs": Kind(_runs, _read_runs, 4),
}
