"""QuantOD's flow in FrEIA, and the usual torch program around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from freia_flows import build

ADAM = {"lr": 9e-5, "betas": (0.8, 0.8), "eps": 1e-4, "weight_decay": 1e-6}
Call = Callable[[], Any]


class Peer:
    """A Glow flow with fixed permutations, initialised on the rows x [B, D]."""

    def __init__(self, x: np.ndarray, blocks: int, layers: int, width: int) -> None:
        torch.manual_seed(0)
        self.dimension, self.device = x.shape[1], "cuda" if torch.cuda.is_available() else "cpu"
        self.flow = build("glow", self.dimension, blocks, layers, width).to(self.device)
        self.flow(self.rows(x))  # the first batch initialises ActNorm
        self.state = {name: value.cpu().clone() for name, value in self.flow.state_dict().items()}

    def rows(self, x: np.ndarray) -> Any:
        return torch.from_numpy(x).to(self.device)

    def finish(self, value: Any) -> Any:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return value

    def log_likelihood(self, x: Any) -> Any:
        z, log_det = self.flow(x)
        return -0.5 * (z * z).sum(1) - 0.5 * self.dimension * float(np.log(2 * np.pi)) + log_det

    def training(
        self, x: np.ndarray, clip: bool = False, q: float | None = 0.05, compiled: Callable[[Any], Any] | None = None
    ) -> Call:
        """A call that takes one step on x with the q-quantile, or the mean where q is None.

        `compiled` turns the log-likelihood into what is run in its place.
        """
        batch, parameters = self.rows(x), [p for p in self.flow.parameters() if p.requires_grad]
        adam = torch.optim.Adam(parameters, **({"fused": True} if self.device == "cuda" else {}), **ADAM)
        log_likelihood = compiled(self.log_likelihood) if compiled else self.log_likelihood

        def call() -> Any:
            self.flow.train()
            adam.zero_grad()
            values = log_likelihood(batch)
            loss = -values.mean() if q is None else -torch.quantile(values, q)
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            adam.step()
            return self.finish(loss)

        return call

    def scoring(self, x: np.ndarray, compiled: Callable[[Any], Any] | None = None) -> Call:
        """A call that returns the log-likelihoods of x."""
        batch = self.rows(x)
        log_likelihood = compiled(self.log_likelihood) if compiled else self.log_likelihood

        def call() -> Any:
            self.flow.eval()
            with torch.inference_mode():
                return self.finish(log_likelihood(batch))

        return call
