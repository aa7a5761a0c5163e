"""Fit a small flow alone or as one of several processes: python two_processes.py OUT.npz [ADDRESS COUNT INDEX]."""

from __future__ import annotations

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from quantjax.flows.base import log_likelihood
from quantjax.flows.recipes import quantod
from quantjax.hosts import connect
from quantjax.losses import likelihood_objective
from quantjax.parallel import device_summary
from quantjax.train.loop import fit, shuffled_order
from quantjax.train.step import init_state, make_step


def main(path: str, *hosts: str) -> None:
    if hosts:
        connect(hosts[0], int(hosts[1]), int(hosts[2]))
    x = np.random.default_rng(0).normal(size=(19, 4)).astype(np.float32)
    model = quantod("glow", dimension=4, blocks=2, layers=0, width=8, dropout=0.3, mixing="permutation")
    params = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0), jnp.asarray(x)))
    optimizer = optax.sgd(1e-4)
    objective = likelihood_objective(partial(log_likelihood, model), model.draw_masks, loss="mean", draw_rows=7)
    losses = []
    state = fit(
        make_step(objective, optimizer), init_state(params, optimizer), (x, None),
        lambda epoch: shuffled_order(0, epoch, len(x), 7), epochs=2, key=jax.random.key(1),
        report=lambda step, metrics: losses.append(metrics["loss"]),
    )  # fmt: skip
    leaves = {f"params{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state.params))}
    np.savez(path, losses=losses, summary=device_summary(), **leaves)


if __name__ == "__main__":
    main(*sys.argv[1:])
