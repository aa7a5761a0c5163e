"""Inference time per method and data set, in the layout of Table 1's second half (Taghikhah et al., AAAI 2024).

    python -m benchmarks.runtime --data-dir DATA --weights DATA/weights/cifar10_wrn40_2.pt \
        --outliers textures chars74k --output benchmarks/results/runtime_cpu.json

Ours and the PyTorch program of the authors' loop (benchmarks/peers/quantod_torch.py) score the same files on the same
machine, alternating; printed are medians over --repeats rounds. As the paper counts, a method's time is that of the
inliers plus one outlier set, loading included, fitting included for Mahalanobis and GEM. Ours is also split into load,
compile, extract, fit and score. Needs torch and FrEIA. One JSON line per method and outlier set.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.peers.subset import Subset
from experiments.images import features
from experiments.images.scoring import score_sets
from experiments.results import versions
from quantjax import data, methods
from quantjax.convert.classifiers import load_classifier
from quantjax.data import images
from quantjax.data.readers import ArraySource
from quantjax.data.sources import open_source
from quantjax.extractors import BACKBONES
from quantjax.flows.recipes import quantod
from quantjax.parallel import cores_as_devices, device_summary

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "golden"))  # the networks in PyTorch
METHODS = ("msp", "energy", "odin", "mahalanobis", "gem", "quantod")
FITTED = ("mahalanobis", "gem")


class Quiet:
    """A progress context that shows nothing."""

    def __init__(self, title: str):
        self.title = title

    def __enter__(self) -> Any:
        return lambda done, total, **extra: None

    def __exit__(self, *_: Any) -> None:
        return None


def ours(args: argparse.Namespace, sources: dict[str, Any], train: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Seconds per method and outlier set, everything cold: no cache of features, no compiled program."""
    jax.clear_caches()
    backbone = BACKBONES[args.backbone]
    variables = load_classifier(args.weights, args.backbone, 10)
    loaded, load_seconds = {}, {}
    for name, source in sources.items():
        start = time.perf_counter()
        loaded[name], _ = data.load(source)
        load_seconds[name] = time.perf_counter() - start
    extractor = features.build(backbone.build(10), variables, backbone.preprocessing, 32, args.batch_size, "float32")
    with tempfile.TemporaryDirectory() as cache:
        outputs = {name: features.extract(extractor, name, rows, Path(cache), Quiet) for name, rows in loaded.items()}
        fitted_on = features.extract(extractor, "train", train[0], Path(cache), Quiet)
    result = {}
    for name in args.methods:
        fitted, fit_seconds = _fitted(name, fitted_on, train[1])
        one = score_sets(methods.get(name), fitted, extractor, loaded, outputs, args.batch_size, Quiet)
        for outlier in (key for key in sources if key != "inlier"):
            pair = ("inlier", outlier)
            parts = {
                "load": sum(load_seconds[k] for k in pair),
                "compile": one.compile_seconds + (extractor.compile_seconds if one.uses_output else 0.0),
                "extract": sum(outputs[k].seconds for k in pair) if one.uses_output else 0.0,
                "fit": fit_seconds,
                "score": sum(one.score_seconds[k] for k in pair),
            }
            result[name, outlier] = parts | {"total": sum(parts.values())}
    return result


def _fitted(name: str, train: features.Extracted, labels: np.ndarray) -> tuple[methods.Fitted, float]:
    """The fitted method and its fit's seconds; the flow is taken as trained, as the paper counts."""
    if name == "quantod":
        settings = {"kind": "glow", "dimension": train.features.shape[1], "mixing": "permutation"}
        params = quantod(**settings).init(jax.random.key(0), train.features[:128])
        return methods.Fitted(settings, params), 0.0
    method = methods.get(name)
    start = time.perf_counter()
    fitted = method.fit(methods.TrainingRows(train.features, labels, 10, train.logits), method.defaults)
    return fitted, time.perf_counter() - start + train.seconds if method.learns_from else 0.0


class Peer:
    """The authors' loop in PyTorch on the same files."""

    def __init__(self, args: argparse.Namespace):
        import torch
        import torch_networks

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        network = torch_networks.build(args.backbone)
        network.load_state_dict(_torch_state(args.weights))
        self.network = network.eval().to(self.device)
        self.preprocessing = BACKBONES[args.backbone].preprocessing
        self.flow = _torch_flow(BACKBONES[args.backbone].feature_dimension).eval().to(self.device)

    def __call__(self, args: argparse.Namespace, sources: dict[str, Any], train: Any) -> dict[str, Any]:
        from benchmarks.peers import quantod_torch as peer

        def dataset(source: Any) -> Any:
            return peer.Images(source, partial(images.fit, size=32), *self.preprocessing[:3])

        scores = {"msp": peer.msp, "energy": peer.energy, "quantod": peer.quantod(self.flow)}
        scores["odin"] = peer.odin(self.preprocessing.std)
        result = {}
        for outlier in (key for key in sources if key != "inlier"):
            for name in args.methods:
                start = time.perf_counter()
                if name in FITTED:
                    rows = dataset(ArraySource(*train))
                    gaussians = peer.fit_gaussians(self.network, rows, train[1], 10, self.device)
                    scores[name] = getattr(peer, name)(*gaussians)
                pair = [dataset(sources[key]) for key in ("inlier", outlier)]
                peer.timed_loop(self.network, pair, scores[name], self.device)
                result[name, outlier] = {"total": time.perf_counter() - start}
        return result


def _torch_state(path: Path) -> dict[str, Any]:
    import torch

    from quantjax.convert.files import read_state_dict

    return {name: torch.from_numpy(np.array(array)) for name, array in read_state_dict(path).items()}


def _torch_flow(dimension: int) -> Any:
    import FrEIA.framework
    import FrEIA.modules
    from torch import nn

    def subnet(inputs: int, outputs: int) -> nn.Module:
        sizes, layers = [inputs, 512, 512, 512], []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.Dropout(0.3), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(512, outputs))

    flow = FrEIA.framework.SequenceINN(dimension)
    for k in range(8):
        flow.append(FrEIA.modules.ActNorm)
        flow.append(FrEIA.modules.PermuteRandom, seed=(k // 2) * 8 + k % 2)
        flow.append(FrEIA.modules.GLOWCouplingBlock, subnet_constructor=subnet, clamp=3.0)
    return flow


def main() -> None:
    cores_as_devices()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="wrn40_2", choices=BACKBONES)
    parser.add_argument("--outliers", nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--inliers", type=int, default=10_000, help="rows of the inlier test split")
    parser.add_argument("--train", type=int, default=50_000, help="rows that Mahalanobis and GEM are fitted on")
    parser.add_argument("--batch-size", type=int, default=128 if jax.default_backend() == "cpu" else 1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()

    cap = data.paper_cap(args.inliers)
    sources: dict[str, Any] = {"inlier": Subset(open_source("cifar10", args.data_dir, "test"), args.inliers)}
    sources |= {name: Subset(open_source(name, args.data_dir), cap) for name in args.outliers}
    train = tuple(part[: args.train] for part in data.load(open_source("cifar10", args.data_dir, "train")))
    peer = Peer(args)
    rounds: dict[str, list[Any]] = {"ours": [], "torch": []}
    for _ in range(args.repeats):
        rounds["ours"].append(ours(args, sources, train))
        rounds["torch"].append(peer(args, sources, train))

    rows = []
    for key in rounds["ours"][0]:
        parts = {p: statistics.median(r[key][p] for r in rounds["ours"]) for p in rounds["ours"][0][key]}
        theirs = statistics.median(r[key]["total"] for r in rounds["torch"])
        row = {"method": key[0], "outlier": key[1], "ours_seconds": parts, "torch_seconds": theirs}
        row["ratio"] = theirs / parts["total"]
        row["ratio_without_compile"] = theirs / (parts["total"] - parts["compile"])
        rows.append(row)
        print(json.dumps(row), flush=True)
    if args.output:
        import torch

        about = {
            "device": device_summary(),
            "peer_device": peer.device,
            "versions": versions() | {"torch": torch.__version__},
            "images": {name: len(source) for name, source in sources.items()} | {"train": len(train[0])},
            "repeats": args.repeats,
            "backbone": args.backbone,
        }
        args.output.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
