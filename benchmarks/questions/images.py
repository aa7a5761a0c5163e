"""Images a second through a classifier: the network alone, every score in one pass, and those that move the image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks import counting
from benchmarks.ceilings import matmul_precision
from benchmarks.programs import (
    Peer,
    Program,
    compare,
    compile_program,
    difference,
    torch_compiled,
    torch_device,
    torch_program,
)
from benchmarks.questions import networks, scored
from benchmarks.questions.context import Context
from benchmarks.questions.sizes import Sizes


class Torch:
    """The classifier in torch, of whose weights ours are a copy."""

    def __init__(self, sizes: Sizes, context: Context):
        import torch

        from benchmarks.peers import images_torch

        self.peer, self.sizes, self.context = images_torch, sizes, context
        torch.backends.cudnn.benchmark = True
        self.network, self.state = images_torch.network(sizes.classifier, sizes.classes)

    def half(self) -> Any:
        return self.peer.Half(self.network, True, torch_device())

    def images(self, pixels: np.ndarray, preprocessing: Any) -> Callable[[], Any]:
        return self.peer.standardised(pixels, *preprocessing[:2], torch_device())

    def network_program(self, pixels: np.ndarray, preprocessing: Any, wanted: Any) -> Program:
        """Logits and features, whose agreement with ours goes into the row."""
        net, read = self.half(), self.images(pixels, preprocessing)
        mode = self.context.peer_mode
        program = torch_program(torch_compiled(lambda: net(read()), mode), context=self.context, mode=mode)
        found = program.call()[0].float().cpu().numpy()
        program.facts["relative_difference"] = difference(np.asarray(wanted()[0]), found)
        return program

    def scores_program(self, pixels: np.ndarray, preprocessing: Any, weights: Any) -> Program:
        """Logits, features and all scores; the flow's where FrEIA is there."""
        net, read, values = self.half(), self.images(pixels, preprocessing), self.fitted(weights)
        mode = self.context.peer_mode

        def run() -> Any:
            logits, features = net(read())
            return logits, features, self.peer.scores(logits, features, values)

        program = torch_program(torch_compiled(run, mode), context=self.context, mode=mode)
        return program._replace(facts=program.facts | ({} if values.flow else {"peer_leaves_out": "quantod (FrEIA)"}))

    def moved_program(self, pixels: np.ndarray, preprocessing: Any, weights: Any) -> Program:
        """ODIN and perturbed Mahalanobis; the network is compiled, automatic differentiation goes through it."""
        mode = self.context.peer_mode and "max-autotune-no-cudagraphs"
        net, values = torch_compiled(self.half(), mode), self.fitted(weights, flow=False)
        read, std = self.images(pixels, preprocessing), preprocessing.std
        run = partial(self.peer.perturbed, net, read(), values, std)
        return torch_program(run, context=self.context, mode=mode, grad=True)

    def loop_program(self, preprocessing: Any) -> Program:
        """MSP by the authors' loop; its worker runs already when time is taken."""
        from benchmarks.peers import quantod_torch
        from quantjax.data.images import fit
        from quantjax.data.readers import ArraySource

        sizes, device = self.sizes, torch_device()
        rows = ArraySource(networks.images(sizes.loop_images, sizes.image))
        images = quantod_torch.Images(rows, partial(fit, size=sizes.image), *preprocessing[:2])
        batches = quantod_torch.loader(images, sizes.loop_workers)
        net = self.peer.network(sizes.classifier, sizes.classes)[0].to(device)
        run = partial(quantod_torch.scores_of, net, batches, quantod_torch.msp, device)
        return torch_program(run, context=self.context, mode=None)

    def fitted(self, weights: Any, flow: bool = True) -> Any:
        import torch

        def placed(array: Any) -> Any:
            return torch.from_numpy(np.array(array)).to(torch_device())

        gaussian, background = weights["gaussian"], weights["background"]
        values = (gaussian.whitening, gaussian.means, gaussian.centre, background.whitening, background.means)
        return self.peer.Fitted(*map(placed, (*values, weights["bank"].bank)), self.flow() if flow else None)

    def flow(self) -> Any:
        from benchmarks.questions.flow import open_peer
        from quantjax.extractors import BACKBONES

        peer = open_peer(self.sizes, BACKBONES[self.sizes.classifier].feature_dimension)
        return peer and peer.flow.eval().requires_grad_(False)


def open_torch(sizes: Sizes, context: Context) -> Torch | None:
    """None where torch is missing."""
    try:
        return Torch(sizes, context)
    except ImportError:
        return None


def _peer(name: str, torch: Torch | None, build: str, *args: Any, amount: float | None = None) -> Peer:
    """A method of Torch as a peer, which says so where torch is missing."""

    def build_it() -> Program:
        if torch is None:
            raise ImportError("torch", name="torch")
        return getattr(torch, build)(*args)

    return Peer(name, build_it, amount)


def scoring(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """Logits and features alone, then with every score that needs no gradient, by precision."""
    pixels, torch = networks.images(sizes.image_batch, sizes.image), open_torch(sizes, context)
    for precision in sizes.precisions:
        given = networks.classifier(sizes, precision, torch and torch.state)
        built, weights = scored.fitted(given, sizes)
        measure = partial(compare, context, amount=sizes.image_batch, unit="images", precision=precision)
        peers: list[Peer] = []
        if precision == "bfloat16":
            ours = compile_program(partial(scored.network, given), weights, pixels, precision=precision)
            args = (pixels, given.preprocessing)
            peers = [_peer("torch", torch, "network_program", *args, ours.call)]
            yield from measure(ours, peers, scores="none: logits and features")
            peers = [
                _peer("torch", torch, "scores_program", *args, weights),
                _peer("the authors' loop, MSP", torch, "loop_program", args[1], amount=sizes.loop_images),
            ]
        if context.expired():
            return
        ours = compile_program(partial(scored.score_all, given, built), weights, pixels, precision=precision)
        yield from measure(ours, peers, scores="all that need no gradient")
        if context.expired():
            return


def perturbed(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """ODIN's and Mahalanobis' scores after a step of the input, by precision."""
    pixels, torch = networks.images(sizes.perturbed_batch, sizes.image), open_torch(sizes, context)
    for precision in sizes.precisions:
        given = networks.classifier(sizes, precision, torch and torch.state)
        weights = scored.fitted(given, sizes)[1]
        ours = compile_program(partial(scored.score_moved, given), weights, pixels, precision=precision)
        peers = [_peer("torch", torch, "moved_program", pixels, given.preprocessing, weights)]
        yield from compare(
            context, ours, peers if precision == "bfloat16" else [],
            amount=sizes.perturbed_batch, unit="images", precision=precision, scores="odin, mahalanobis_perturbed",
        )  # fmt: skip
        if context.expired():
            return


def table(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """Every score of inliers and outliers with its FPR95 and AUROC, from images in the host's memory: warm and cold."""
    import jax

    from quantjax import metrics
    from quantjax.inference import batched

    given = networks.classifier(sizes, "bfloat16")
    start = time.perf_counter()
    built, weights = scored.fitted(given, sizes)
    fit_seconds = time.perf_counter() - start
    functions = (partial(scored.score_all, given, built), partial(scored.score_moved, given, gem=True))
    plain, moved = (batched(function, batch_size=sizes.table_batch, shared=1) for function in functions)
    sets = [networks.images(sizes.table_images, sizes.image, seed) for seed in (1, 2)]
    weights = jax.device_put(weights)

    def whole() -> dict[str, Any]:
        with jax.default_matmul_precision(matmul_precision("bfloat16")):
            inliers, outliers = (plain(weights, rows) | moved(weights, rows) for rows in sets)
        names = [name for name in inliers if name not in ("logits", "features")]
        rates = {"fpr95": metrics.fpr_at_tpr, "auroc": metrics.auroc}
        return {n: {r: rate(inliers[n], outliers[n]) for r, rate in rates.items()} for n in names}

    start = time.perf_counter()
    found = whole()
    cold = time.perf_counter() - start
    count = 2 * sizes.table_images
    one = jax.ShapeDtypeStruct((1, *sets[0].shape[1:]), np.uint8)
    work = [counting.work(function, weights, one) for function in functions]
    ours = Program(whole, cold, {"methods": len(found), "gflop": round(count * sum(w.flops for w in work) / 1e9, 3)})
    for row in compare(context, ours, [], amount=count, unit="images", precision="bfloat16"):
        row["cold_seconds"] = cold
        yield row | {"fit_seconds": fit_seconds, "batch": sizes.table_batch}
