"""Record scikit-learn's rates on scores with many ties. Run: python tests/golden/make_metrics.py"""

from pathlib import Path

import numpy as np
import sklearn
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

rng = np.random.default_rng(13)
PAIRS = 12
recorded: dict[str, np.ndarray] = {}
table = np.zeros((PAIRS, 5))  # fpr95 and AUPR with inliers positive, the same with outliers positive, AUROC
for i in range(PAIRS):
    grid = 4 if i % 2 else 1000
    inliers = np.round(rng.normal(0.0, 1.0, rng.integers(3, 300)) * grid) / grid
    outliers = np.round(rng.normal(1.2, 1.5, rng.integers(3, 300)) * grid) / grid
    is_outlier = np.concatenate([np.zeros(len(inliers)), np.ones(len(outliers))])
    scores = np.concatenate([inliers, outliers])
    for column, (truth, value) in enumerate([(1 - is_outlier, -scores), (is_outlier, scores)]):
        fpr, tpr, _ = roc_curve(truth, value, drop_intermediate=False)
        table[i, 2 * column] = fpr[np.argmax(tpr >= 0.95)]
        table[i, 2 * column + 1] = average_precision_score(truth, value)
    table[i, 4] = roc_auc_score(is_outlier, scores)
    recorded |= {f"in_{i}": inliers, f"out_{i}": outliers}

np.savez_compressed(
    Path(__file__).parent / "metrics.npz", origin=f"scikit-learn {sklearn.__version__}", table=table, **recorded
)
