"""Do inliers still look like those that a detector was calibrated on? A test of a batch, and one that watches a stream.

Both see scores alone and say only that the two kinds differ: the camera changed, classes moved, or outliers came.

The stream's is a conformal test martingale (Vovk, Gammerman and Shafer 2005, chapter 7): every score gets a smoothed
p-value among all that came before it, the held-out inliers first. As long as scores are exchangeable these p-values are
independent and uniform, and a wealth that starts at 1 and bets on them by densities f on [0, 1],

    S <- S f(p),    integral of f over [0, 1] = 1,

exceeds 1 / alpha at any time with probability alpha at most (Ville). The bets are powers f(p) = e p^(e - 1) on small p
and on small 1 - p, the slopes f(p) = 1 + e (p - 1/2), e = 1 and -1, and no bet, f = 1. A share JUMP of the wealth is
dealt out anew before each bet, so that a late change finds some of it everywhere (the Simple Jumper of Vovk et al.,
"Retrain or not retrain", COPA 2021, with more bets).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from quantjax.checks import check_choice, check_interval, check_shape
from quantjax.metrics.rates import checked_scores

JUMP = 0.01  # of the wealth, dealt out anew at each step, as the Simple Jumper does
POWERS = (0.1, 0.3, 0.6)  # e of the bets on small p, and of those on small 1 - p
SLOPES = (-1.0, 1.0)  # the Simple Jumper's, beside no bet
BETS = 1 + 2 * len(POWERS) + len(SLOPES)
LEAST = 1e-12  # a smoothed p-value may be 0, where powers have no finite value; what is cut off costs wealth alone


class DriftTest(NamedTuple):
    """What a two-sample test says of a batch against the held-out inliers."""

    drifted: bool
    """p_value <= significance"""
    p_value: float
    """Probability of a statistic as far out, were both of one kind; 0..1"""
    statistic: float
    """Kolmogorov-Smirnov: largest distance of the shares at or below a score, 0..1; Mann-Whitney: AUROC, 0..1, the
    chance that a row of the batch is more outlying than a held-out one, 0.5 when nothing changed"""
    test: str
    """Key of TESTS"""


class Watch(NamedTuple):
    """What a watched stream has come to: explicit state, `observe` returns the next."""

    seen: np.ndarray
    """[n + steps] ascending scores: the held-out inliers and the stream so far"""
    shares: np.ndarray
    """[BETS] of the wealth, by bet; they sum to 1"""
    log_wealth: float
    """Natural logarithm of S; 0 at the start"""
    log_largest: float
    """The largest log_wealth so far, at least 0"""
    steps: int
    """Rows of the stream so far"""
    seed: int
    """Of the draws that order ties; draw k belongs to step k, so that how a stream is cut changes nothing"""

    @property
    def p_value(self) -> float:
        """1 / largest wealth: at most alpha, ever, with probability alpha at most while nothing drifts."""
        return math.exp(-self.log_largest)


def drift_test(held_out: ArrayLike, scores: ArrayLike, *, test: str = "ks", significance: float = 0.01) -> DriftTest:
    """Test whether outlier scores [N] of a batch are distributed as those of held-out inliers [n].

    "ks", the two-sample Kolmogorov-Smirnov test, sees any change of the distribution; "mann_whitney" a move towards
    higher or lower scores, with more power. Both are two-sided and know nothing of the order of rows. NaN counts as the
    most outlying. Rows must be independent: frames of one film are not. Raises ValueError on a wrong rank, an empty
    side, NaN in held_out, an unknown test, or a significance outside (0, 1).
    """
    check_choice("test", test, TESTS)
    check_interval("significance", significance, 0.0, 1.0, closed="neither")
    ordered, batch = checked_scores("held_out", held_out), checked_scores("scores", _nan_last(scores))
    statistic, p_value = TESTS[test](ordered, batch)
    return DriftTest(bool(p_value <= significance), float(p_value), float(statistic), test)


def _kolmogorov_smirnov(held_out: np.ndarray, scores: np.ndarray) -> tuple[Any, Any]:
    from scipy.stats import ks_2samp

    found = ks_2samp(held_out, scores)
    return found.statistic, found.pvalue


def _mann_whitney(held_out: np.ndarray, scores: np.ndarray) -> tuple[Any, Any]:
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(scores, held_out, alternative="two-sided")
    return found.statistic / (len(scores) * len(held_out)), found.pvalue


TESTS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]] = {
    "ks": _kolmogorov_smirnov,
    "mann_whitney": _mann_whitney,
}


def watch(held_out: ArrayLike, *, seed: int = 0) -> Watch:
    """The state before the first row of a stream, from scores [n] of held-out inliers; ValueError for none or NaN."""
    ordered = np.sort(checked_scores("held_out", held_out))
    return Watch(ordered, np.full(BETS, 1.0 / BETS), 0.0, 0.0, 0, seed)


def observe(state: Watch, scores: ArrayLike) -> Watch:
    """The state after further scores [N] in the order in which they came; NaN counts as the most outlying.

    The stream has drifted when `p_value` falls to a level chosen beforehand, 0.01 say, at any time: a false alarm,
    however long the stream is, then has at most that probability. State and cost of a row grow with the stream, by
    eight bytes a row; start a new watch where that is too much. Raises ValueError on a wrong rank.
    """
    given = _nan_last(scores)
    seen, shares, log_wealth, log_largest, steps, seed = state
    for score in given:
        draw = np.random.default_rng([seed, steps]).random()
        low, high = np.searchsorted(seen, score, side="left"), np.searchsorted(seen, score, side="right")
        p = (len(seen) - high + draw * (1 + high - low)) / (len(seen) + 1)
        shares, growth = wager(shares, bets(p))
        log_wealth += math.log(growth)
        log_largest, steps, seen = max(log_largest, log_wealth), steps + 1, np.insert(seen, high, score)
    return Watch(seen, shares, log_wealth, log_largest, steps, seed)


def wager(shares: np.ndarray, densities: np.ndarray) -> tuple[np.ndarray, float]:
    """(shares of the wealth [J], factor by which all of it grew) once bets of these densities [J] have been paid."""
    won = densities * ((1.0 - JUMP) * shares + JUMP / len(shares))
    growth = float(won.sum())
    return won / growth, growth


def bets(p: float) -> np.ndarray:
    """[BETS] densities at a p-value in [0, 1]: no bet, the powers of p, those of 1 - p, the slopes."""
    powers, slopes = np.asarray(POWERS), np.asarray(SLOPES)
    sides = [powers * max(side, LEAST) ** (powers - 1.0) for side in (p, 1.0 - p)]
    return np.concatenate([[1.0], *sides, 1.0 + slopes * (p - 0.5)])


def _nan_last(scores: ArrayLike) -> np.ndarray:
    array = np.asarray(scores, np.float64)
    check_shape("scores", array, "[N]")
    return np.where(np.isnan(array), np.inf, array)
