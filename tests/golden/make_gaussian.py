"""Record log-densities computed by SciPy in float64. Run: python tests/golden/make_gaussian.py"""

from pathlib import Path

import numpy as np
import scipy
from scipy.stats import multivariate_normal

rng = np.random.default_rng(11)
B, D, K = 7, 5, 3
x = rng.normal(size=(B, D)).astype(np.float32)
means = rng.normal(size=(K, D)).astype(np.float32)
variances = rng.uniform(0.2, 3.0, size=(K, D)).astype(np.float32)
root = rng.normal(size=(D, D))
covariance = root @ root.T + 0.3 * np.eye(D)

np.savez_compressed(
    Path(__file__).parent / "gaussian.npz",
    origin=f"scipy.stats.multivariate_normal {scipy.__version__}, float64",
    x=x,
    means=means,
    variances=variances,
    covariance=covariance,
    standard=multivariate_normal(np.zeros(D), np.eye(D)).logpdf(x),
    diagonal=np.stack([multivariate_normal(m, np.diag(v)).logpdf(x) for m, v in zip(means, variances, strict=True)], 1),
    tied=np.stack([multivariate_normal(m, covariance).logpdf(x) for m in means], 1),
)
