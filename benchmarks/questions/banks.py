"""Queries a second against banks of features and Gaussians: exact nearest neighbours, and Mahalanobis distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.programs import Peer, Program, compare, compile_program, difference, torch_device, torch_program
from benchmarks.questions import networks
from benchmarks.questions.context import Context
from benchmarks.questions.sizes import Sizes

NEIGHBOURS = 10
ALL_QUERIES = 50_000  # of the goal: ImageNet's validation set


def knn(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """The 10th nearest of a small and of a large bank, by the library's score and by approx_max_k."""
    for size in (sizes.small_bank, sizes.large_bank):
        rows, dimension, count = size
        bank, queries = (unit_rows(key, n, dimension) for key, n in ((0, rows), (1, count)))
        exact = None
        for name, search in searches(sizes, rows).items():
            if context.expired():
                return
            ours = compile_program(search, bank, queries)
            found, exact = ours.call(), ours.call() if exact is None else exact
            peers = [Peer("torch", partial(_torch_knn, bank, queries, sizes.bank_block, context, exact))]
            about = {"bank_rows": rows, "dimension": dimension, "search": name}
            about["largest_difference"] = float(np.abs(np.asarray(found) - np.asarray(exact)).max())
            for row in compare(
                context,
                ours,
                peers if name == "exact" else [],
                amount=count,
                unit="queries",
                precision="float32",
                **about,
            ):
                yield row | {f"seconds_of_{ALL_QUERIES}_queries": ALL_QUERIES * row["seconds"] / count}
            del ours, found


def unit_rows(seed: int, rows: int, dimension: int) -> Any:
    """Random rows of length one, drawn on the device: a large bank takes the host minutes to draw."""
    import jax

    def draw() -> Any:
        x = jax.random.normal(jax.random.key(seed), (rows, dimension))
        return x / (x**2).sum(1, keepdims=True) ** 0.5

    return jax.jit(draw)()


def searches(sizes: Sizes, rows: int) -> dict[str, Callable[..., Any]]:
    """search(bank [N, D] of unit rows, queries) -> cosine distance to the 10th nearest, [B]."""
    from quantjax import scores

    def exact(bank: Any, queries: Any, **options: Any) -> Any:
        return scores.knn(scores.Neighbours(bank), queries, NEIGHBOURS, **options)

    block = min(sizes.bank_block, rows)
    return {
        "exact": exact,
        f"exact, blocks of {block}": partial(exact, block=block),
        f"approx_max_k, blocks of {block}": partial(approximate, block=block),
    }


def approximate(bank: Any, queries: Any, block: int) -> Any:
    """The same by lax.approx_max_k over every block, recall 0.95."""
    import jax
    import jax.numpy as jnp

    def largest(part: Any) -> Any:
        cosines = jnp.matmul(queries, part.T, precision=jax.lax.Precision.HIGHEST)
        return jax.lax.approx_max_k(cosines, min(NEIGHBOURS, cosines.shape[1]))[0]

    whole = len(bank) // block * block
    found = jax.lax.map(largest, bank[:whole].reshape(-1, block, bank.shape[1]))
    parts = [jnp.moveaxis(found, 0, 1).reshape(len(queries), -1)]
    parts += [largest(bank[whole:])] if whole < len(bank) else []
    return 1.0 - jax.lax.top_k(jnp.concatenate(parts, axis=1), NEIGHBOURS)[0][:, -1]


def _torch_knn(bank: Any, queries: Any, block: int, context: Context, wanted: Any) -> Program:
    import torch

    parts, rows = _shared(bank).split(block), _shared(queries)

    def search() -> Any:
        best = [(rows @ part.T).topk(min(NEIGHBOURS, len(part))).values for part in parts]
        return 1 - torch.cat(best, 1).topk(NEIGHBOURS).values[:, -1]

    program = torch_program(search, context=context, mode=None)
    program.facts["relative_difference"] = difference(program.call().cpu().numpy(), np.asarray(wanted))
    return program


def _shared(array: Any) -> Any:
    """A JAX array as a torch tensor on the same memory, where torch runs on the same device."""
    import torch

    same = (torch_device() == "cuda") == (array.devices().pop().platform != "cpu")
    return torch.from_dlpack(array) if same else torch.from_numpy(np.array(array)).to(torch_device())


def mahalanobis(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """Half the squared distance to the nearest class mean."""
    from quantjax import scores

    for dimension in sizes.dimensions:
        if context.expired():
            return
        features, labels = networks.labelled_features(sizes.gaussian_rows, dimension, sizes.classes)
        gaussian = scores.fit_tied_gaussian(features, labels, sizes.classes)
        ours = compile_program(scores.mahalanobis, gaussian, features)
        yield from compare(
            context, ours, [Peer("torch", partial(_torch_mahalanobis, gaussian, features, context))],
            amount=len(features), unit="queries", precision="float32", dimension=dimension,
        )  # fmt: skip


def _torch_mahalanobis(gaussian: Any, features: np.ndarray, context: Context) -> Program:
    import torch

    from benchmarks.peers.images_torch import half_distances
    from benchmarks.programs import torch_compiled

    values = (features, gaussian.whitening, gaussian.centre, gaussian.means)
    placed = [torch.from_numpy(np.array(value)).to(torch_device()) for value in values]
    nearest = torch_compiled(lambda *args: half_distances(*args).min(1).values, context.peer_mode)
    return torch_program(nearest, *placed, context=context, mode=context.peer_mode)
