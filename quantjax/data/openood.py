"""Which image lists make up a benchmark of OpenOOD 1.5 (Zhang et al., 2023), by the names of its files.

benchmark_imglist/<inliers>/ holds train_, val_ and test_<inliers>.txt, test_<outliers>.txt of each outlier set and, for
the full spectrum, lists of inliers whose look is shifted: drawn anew, corrupted, painted. For CIFAR the validation list
is 1,000 of the 10,000 test images, and 9,000 are left to test on. The lists of validation outliers, on which OpenOOD
chooses settings, are not read: nothing here is chosen on outliers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from quantjax.data.image_lists import image_list
from quantjax.data.readers import FileSource

SOURCE = "benchmark_imglist of OpenOOD 1.5, https://github.com/Jingkang50/OpenOOD"
NEAR, FAR = "near", "far"
CUT_ALREADY = ("imagenet_c",)  # stored as 224 pixels: OpenOOD neither resizes nor cuts them


class Benchmark(NamedTuple):
    """The sets that one inlier set is told from, by the names that OpenOOD gives them."""

    near: tuple[str, ...]
    """Outliers like the inliers"""
    far: tuple[str, ...]
    """Other outliers"""
    shifted: Mapping[str, str] = {}
    """Inliers whose look is shifted -> the list's file"""


class Lists(NamedTuple):
    """The lists of one benchmark that lie in a folder."""

    inlier: str
    """Name of the inlier set"""
    groups: Mapping[str, tuple[str, ...]]
    """"near" and "far" -> their outlier sets, in OpenOOD's order"""
    shifted: tuple[str, ...]
    """Inliers whose look is shifted; none unless they were asked for"""
    files: Mapping[tuple[str, str], Path]
    """(set, split) -> list; splits are "train", "val" and "test" of the inliers, "test" of all others"""

    @property
    def outliers(self) -> tuple[str, ...]:
        """The outlier sets, near ones first."""
        return tuple(name for names in self.groups.values() for name in names)

    def open(self, name: str, split: str, data_dir: str | Path | None = None) -> FileSource:
        """The source of a set; raises as `image_lists.image_list` does."""
        return image_list(self.files[name, split], data_dir)


_SMALL_FAR = ("mnist", "svhn", "texture", "places365")
_LARGE_NEAR, _LARGE_FAR = ("ssb_hard", "ninco"), ("inaturalist", "textures", "openimage_o")
BENCHMARKS: dict[str, Benchmark] = {
    "cifar10": Benchmark(("cifar100", "tin"), _SMALL_FAR, {"cifar10c": "test_cifar10c.txt"}),
    "cifar100": Benchmark(("cifar10", "tin"), _SMALL_FAR),
    "imagenet200": Benchmark(
        _LARGE_NEAR, _LARGE_FAR, {f"imagenet_{which}": f"test_imagenet200_{which}.txt" for which in ("v2", "c", "r")}
    ),
    "imagenet": Benchmark(
        _LARGE_NEAR, _LARGE_FAR, {f"imagenet_{which}": f"test_imagenet_{which}.txt" for which in ("v2", "c", "r", "es")}
    ),
}


def find_lists(folder: str | Path, *, full_spectrum: bool = False) -> Lists:
    """The lists of the benchmark whose training list lies in a folder; full_spectrum asks for the shifted ones, too.

    Raises:
        FileNotFoundError: the folder, or a list of the benchmark, is not there.
        ValueError: it holds the training lists of several benchmarks, none of which it is called after, or the full
            spectrum is wanted of a benchmark that has none.
    """
    folder = Path(folder).expanduser()
    name = _benchmark_in(folder)
    benchmark = BENCHMARKS[name]
    if full_spectrum and not benchmark.shifted:
        having = ", ".join(one for one, other in BENCHMARKS.items() if other.shifted)
        raise ValueError(f"OpenOOD 1.5 has no shifted inliers of {name}, only of {having}: leave the full spectrum out")
    groups = {NEAR: benchmark.near, FAR: benchmark.far}
    files = {(name, split): folder / f"{split}_{name}.txt" for split in ("train", "val", "test")}
    files |= {(other, "test"): folder / f"test_{other}.txt" for names in groups.values() for other in names}
    shifted = benchmark.shifted if full_spectrum else {}
    files |= {(other, "test"): folder / file for other, file in shifted.items()}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)} of the benchmark {name}; get them from {SOURCE}")
    return Lists(name, groups, tuple(shifted), files)


def _benchmark_in(folder: Path) -> str:
    there = [name for name in BENCHMARKS if (folder / f"train_{name}.txt").is_file()]
    if not there:
        wanted = ", ".join(f"train_{name}.txt" for name in BENCHMARKS)
        raise FileNotFoundError(f"{folder} holds none of {wanted}; give the folder of one benchmark, from {SOURCE}")
    if len(there) > 1 and folder.absolute().name not in there:
        raise ValueError(f"{folder} holds the training lists of {', '.join(there)}; give the folder of one benchmark")
    return there[0] if len(there) == 1 else folder.absolute().name
