"""Record what crepes makes of scores with ties: p-values, within groups, smoothed, and a Simple Jumper's wealth.

Run with crepes installed (it brings scikit-learn and pandas): python tests/golden/make_conformal.py
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
from crepes.base import ConformalClassifier
from crepes.martingales import EpsilonBettingFunction, SimpleJumper

rng = np.random.default_rng(7)
held_out = np.round(rng.normal(size=137) * 5) / 5
scores = np.round(rng.normal(0.7, 1.5, 60) * 5) / 5
held_out_groups, groups = rng.integers(0, 4, len(held_out)), rng.integers(0, 4, len(scores))
SEED = 3

plain, mondrian = ConformalClassifier(), ConformalClassifier()
plain.fit(held_out)
mondrian.fit(held_out, bins=held_out_groups)
smoothed = plain.predict_p(scores, smoothing=True, seed=SEED)
jumper = SimpleJumper(J=0.01, bf=EpsilonBettingFunction(E=[-1, 0, 1]))
wealth = np.asarray(jumper.apply(smoothed))

np.savez_compressed(
    Path(__file__).parent / "conformal.npz",
    origin=f"crepes {version('crepes')}",
    held_out=held_out,
    scores=scores,
    held_out_groups=held_out_groups,
    groups=groups,
    p_values=plain.predict_p(scores, smoothing=False),
    p_values_by_group=mondrian.predict_p(scores, bins=groups, smoothing=False),
    ties=np.random.RandomState(SEED).rand(len(scores)),  # what crepes draws after numpy.random.seed(SEED)
    smoothed=smoothed,
    wealth=wealth,
)
