"""QuantOD's flow: rows scored a second, and training by the quantile and by the mean, in every form of the gradient."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import counting
from benchmarks.programs import Peer, Program, compare, compile_program, difference, torch_compiled
from benchmarks.questions import networks
from benchmarks.questions.context import Context
from benchmarks.questions.sizes import Sizes

FLOAT = 4  # bytes


class Form(NamedTuple):
    """One way to the gradient of one loss."""

    loss: str
    form: str  # two_row: only the two rows around the quantile are differentiated; plain: all
    deferred: bool  # weight gradients formed outside the loop over blocks (flows/deferred.py)


TWO_ROW, TWO_ROW_IN_LOOP = Form("quantile", "two_row", True), Form("quantile", "two_row", False)
PLAIN, PLAIN_IN_LOOP = Form("quantile", "plain", True), Form("quantile", "plain", False)
MEAN, MEAN_IN_LOOP = Form("mean", "plain", True), Form("mean", "plain", False)
FORMS = (TWO_ROW, TWO_ROW_IN_LOOP, MEAN, MEAN_IN_LOOP, PLAIN, PLAIN_IN_LOOP)


def open_peer(sizes: Sizes, dimension: int) -> Any:
    """FrEIA's flow of the same sizes; None where torch or FrEIA is missing."""
    try:
        from benchmarks.peers.freia_torch import Peer as Freia
    except ImportError:
        return None
    return Freia(features(sizes.batch, dimension), sizes.blocks, sizes.layers, sizes.width)


def features(rows: int, dimension: int) -> np.ndarray:
    """Random rows float32 [rows, dimension]."""
    return np.float32(1) + np.float32(2) * np.random.default_rng(0).standard_normal((rows, dimension), np.float32)


def with_weights_of(peer: Any, sizes: Sizes, dimension: int, **options: Any) -> tuple[Any, Any]:
    """Our flow, with the peer's weights where there is one."""
    from quantjax.convert.flows import to_flow

    built, params = networks.flow(sizes, dimension, **options)
    return built, params if peer is None else to_flow(peer.state)[1]


def scoring(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """Log-likelihoods, the subnets in float32 and in bfloat16."""
    from quantjax.flows import log_likelihood

    for dimension in sizes.dimensions:
        peer, x = open_peer(sizes, dimension), features(sizes.flow_rows, dimension)
        for precision in ("float32", "bfloat16"):
            built, params = with_weights_of(peer, sizes, dimension, dtype=networks.compute_dtype(precision))
            ours = compile_program(partial(log_likelihood, built), params, x, precision=precision)
            peers = [
                Peer("FrEIA, eager", partial(_freia_scoring, peer, x, context, None, ours)),
                Peer("FrEIA, compiled", partial(_freia_scoring, peer, x, context, context.peer_mode, ours)),
            ]
            yield from compare(
                context, ours, peers if precision == "float32" else [],
                amount=sizes.flow_rows, unit="rows", precision=precision, dimension=dimension,
            )  # fmt: skip
            if context.expired():
                return


def _freia_scoring(peer: Any, x: np.ndarray, context: Context, mode: str | None, ours: Program) -> Program:
    call, seconds = _started(peer, context, lambda: peer.scoring(x, partial(torch_compiled, mode=mode)))
    facts = {"peer_mode": mode or "eager", "relative_difference": difference(ours.call(), call().cpu().numpy())}
    return Program(call, seconds, facts)


def _started(peer: Any, context: Context, make: Any) -> tuple[Any, float]:
    """A call of FrEIA's that has run twice, and the seconds this took."""
    if peer is None:
        raise ImportError("FrEIA or torch", name="FrEIA")
    start = time.perf_counter()
    with context.limit(context.peer_seconds):
        call = make()
        call()
        call()
    return call, time.perf_counter() - start


def training(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """One epoch as one scan, in every form at the first dimension, then the rows that say which form pays."""
    seconds: dict[Form, float] = {}
    first, *others = sizes.dimensions
    peer = open_peer(sizes, first)
    for form in FORMS[: sizes.flow_forms]:
        peers = _freia_peers(peer, sizes, first, context, form) if form in (TWO_ROW, MEAN) else []
        for row in _epoch(sizes, context, first, form, peers):
            seconds[form] = row["seconds"]
            yield row
        if context.expired():
            break
    yield {"dimension": first, "pays": _verdict(seconds)}
    for dimension in others:
        for form in (TWO_ROW, MEAN):
            if context.expired():
                return
            yield from _epoch(sizes, context, dimension, form, [])


def steps(sizes: Sizes, context: Context) -> Iterator[dict[str, Any]]:
    """One training step a call, by the quantile; random bits by both generators."""
    for dimension in sizes.dimensions:
        for generator in sizes.generators:
            if context.expired():
                return
            yield from _epoch(sizes, context, dimension, TWO_ROW, [], rows=sizes.batch, generator=generator)


def _verdict(seconds: dict[Form, float]) -> dict[str, float]:
    """Seconds of the plainer form over those of the other: above 1 the other pays."""
    pairs = {
        "deferred_two_row": (TWO_ROW_IN_LOOP, TWO_ROW),
        "deferred_plain": (PLAIN_IN_LOOP, PLAIN),
        "deferred_mean": (MEAN_IN_LOOP, MEAN),
        "two_row": (PLAIN, TWO_ROW),
        "two_row_without_deferred": (PLAIN_IN_LOOP, TWO_ROW_IN_LOOP),
    }
    known = {name: pair for name, pair in pairs.items() if all(form in seconds for form in pair)}
    return {name: round(seconds[plain] / seconds[other], 3) for name, (plain, other) in known.items()}


def optimizer() -> Any:
    """Adam with L2 decay added to the gradient (Taghikhah et al. 2024, "Meta-parameters")."""
    import optax

    return optax.chain(optax.add_decayed_weights(1e-6), optax.adam(9e-5))


def epoch_of(built: Any, form: Form, q: float) -> Any:
    """epoch(state, data, order, key) -> (state, infos) by one form of the gradient."""
    from quantjax.flows import log_likelihood
    from quantjax.losses import likelihood_objective
    from quantjax.train import make_epoch, make_step

    chosen = built if form.deferred else built._replace(reverse_mode=None)
    objective = likelihood_objective(
        partial(log_likelihood, chosen), chosen.draw_masks, loss=form.loss, q=q, form=form.form
    )
    return make_epoch(make_step(objective, optimizer()))


def _epoch(
    sizes: Sizes, context: Context, dimension: int, form: Form, peers: list[Peer],
    rows: int | None = None, generator: str = "threefry2x32",
) -> Iterator[dict[str, Any]]:  # fmt: skip
    amount = rows or sizes.epoch_rows
    ours, steps = epoch_program(sizes, dimension, form, amount, generator), -(-amount // sizes.batch)
    about = {"dimension": dimension, "steps": steps, **form._asdict(), "generator": generator}
    for row in compare(context, ours, peers, amount=amount, unit="rows", precision="float32", **about):
        yield row | {"step_milliseconds": round(1e3 * row["seconds"] / steps, 4)}


def epoch_program(sizes: Sizes, dimension: int, form: Form, rows: int, generator: str) -> Program:
    """An epoch of `rows` rows in one call."""
    import jax

    from quantjax.train import init_state, shuffled_order

    built, params = networks.flow(sizes, dimension)
    epoch, order = epoch_of(built, form, sizes.q), shuffled_order(0, 0, rows, sizes.batch)
    args = (init_state(params, optimizer()), (features(rows, dimension), None), order)
    key = jax.random.key(0, impl=generator)
    counted = counting.work(epoch, *args, key)._replace(bytes=_traffic(params, form, len(order)))
    return compile_program(epoch, *args, key, carry=True, work=counted)


def _traffic(params: Any, form: Form, count: int) -> int:
    """Bytes that `count` steps move at least: parameters in every pass, and what Adam reads and writes of them."""
    import jax

    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    passes = 3 if form.form == "two_row" else 2  # a batch forward, and forward and backward again for the two rows
    return FLOAT * weights * (passes + 6) * count


def _freia_peers(peer: Any, sizes: Sizes, dimension: int, context: Context, form: Form) -> list[Peer]:
    q, x = (None if form.loss == "mean" else sizes.q), features(sizes.batch, dimension)
    mode = context.peer_mode and "max-autotune-no-cudagraphs"  # gradients outlive the call

    def build(mode: str | None) -> Program:
        train = partial(peer.training, x, q=q, compiled=partial(torch_compiled, mode=mode)) if peer else None
        return Program(*_started(peer, context, train), {"peer_mode": mode or "eager"})

    return [
        Peer(name, partial(build, chosen), sizes.batch)
        for name, chosen in (("FrEIA, eager", None), ("FrEIA, compiled", mode))
    ]
