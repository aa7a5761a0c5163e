"""Record post-hoc scores of pytorch-ood, SciPy and scikit-learn. Run: python tests/golden/make_post_hoc.py

Needs torch and pytorch-ood 0.4.0. Signs are pytorch-ood's: higher = more outlying. Features are non-negative, as a ReLU
leaves them; maps of one pixel stand in for pooled features. Ten training rows are not classified rightly.
"""

from pathlib import Path

import numpy as np
import pytorch_ood
import scipy
import sklearn
import torch
from pytorch_ood import detector
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import multivariate_normal
from sklearn.covariance import OAS
from sklearn.mixture import GaussianMixture

torch.manual_seed(11)
torch.set_default_dtype(torch.float32)
K, D, N = 5, 12, 250
centres = 2.0 * torch.rand(K, D)
labels = torch.arange(N) % K
train = torch.relu(centres[labels] + 0.4 * torch.randn(N, D) @ (0.3 * torch.randn(D, D) + torch.eye(D)))
queries = torch.cat([train[:6] + 0.05 * torch.rand(6, D), 3.0 * torch.rand(6, D)])
design = torch.cat([train, torch.ones(N, 1)], 1)
solved = torch.linalg.lstsq(design, 6.0 * torch.nn.functional.one_hot(labels, K).float()).solution
head = torch.nn.Linear(D, K)
with torch.no_grad():
    head.weight.copy_(solved[:D].T + 0.1 * torch.randn(K, D))
    head.bias.copy_(solved[D])
    train_logits, logits = head(train), head(queries)
right = train_logits.argmax(1) == labels


def as_maps(rows):
    return rows[:, :, None, None]


def on_maps(made):
    """Scores of a detector of maps, whose head takes pooled ones."""
    made.head = lambda maps: head(maps.mean((2, 3)))
    if made.requires_fit:
        made.fit_feature_maps(as_maps(train), labels)
    return made.predict_feature_maps(as_maps(queries))


def on_features(made):
    return made.fit_features(train, labels).predict_features(queries)


def on_logits(made, rows=slice(None)):
    return made.fit_logits(train_logits[rows], labels[rows]).predict_logits(logits)


def nll(log_temperature):
    log_p = log_softmax(train_logits.double().numpy() / np.exp(log_temperature), axis=1)
    return -log_p[np.arange(N), labels.numpy()].mean()


def gen(top):
    """NumPy in float64: pytorch-ood cuts probabilities at 1e-7, which sure rows have many of."""
    logs = np.sort(log_softmax(logits.double().numpy(), axis=1))[:, ::-1]
    rest = np.exp(logs[:, 1:]).sum(1)  # 1 - p of the largest
    others = logs[:, 1:top] + np.log1p(-np.exp(logs[:, 1:top]))
    return np.exp(0.1 * others).sum(1) + np.exp(0.1 * (logs[:, 0] + np.log(rest)))


def gradnorm():
    """The gradient itself, row by row."""
    found = []
    for row in queries:
        loss = -torch.log_softmax(head(row[None]), 1).mean()
        found.append(-torch.autograd.grad(loss, head.weight)[0].abs().sum())
    return torch.stack(found)


def within(rows):
    rows, own = rows.double().numpy(), labels.numpy()
    means = np.stack([rows[own == k].mean(0) for k in range(K)])
    return means, rows - means[own]


def tied_distances(rows, points, shrinkage=0.0):
    """Half squared Mahalanobis distances to the nearest class, NumPy in float64."""
    means, residual = within(rows)
    covariance = residual.T @ residual / N
    covariance = (1.0 - shrinkage) * covariance + (shrinkage + 1e-6) * np.diag(np.diag(covariance))
    away = points.double().numpy()[:, None] - means
    return 0.5 * np.einsum("bkd,de,bke->bk", away, np.linalg.inv(covariance), away).min(1)


def unit(rows):
    return torch.nn.functional.normalize(rows.double(), dim=1)


def typicality():
    rows, points = train.double().numpy(), queries.double().numpy()
    covariance = np.cov(rows.T, bias=True)
    covariance += 1e-6 * np.diag(np.diag(covariance))
    law = multivariate_normal(rows.mean(0), covariance)
    return np.abs(-law.logpdf(points) - law.entropy())


def mixture(iterations):
    """scikit-learn's mixture of diagonal Gaussians of whitened rows, from the classes on; minus its log densities."""
    _, residual = within(train)
    covariance = residual.T @ residual / N
    covariance += 1e-6 * np.diag(np.diag(covariance))
    deviations = residual.std(0)
    values, vectors = np.linalg.eigh(covariance / deviations[:, None] / deviations)
    turned = vectors.T / np.sqrt(values)[:, None] / deviations
    centre = train.double().numpy().mean(0)
    rows, points = ((a.double().numpy() - centre) @ turned.T for a in (train, queries))
    own = [rows[labels.numpy() == k] for k in range(K)]
    made = GaussianMixture(
        K, covariance_type="diag", reg_covar=0.01, max_iter=max(iterations, 1), tol=0.0,
        weights_init=np.full(K, 1 / K), means_init=np.stack([r.mean(0) for r in own]),
        precisions_init=1.0 / (np.stack([r.var(0) for r in own]) + 0.01),
    )  # fmt: skip
    made.fit(rows)
    return -made.score_samples(points)


vim = detector.ViM(None, 7, head.weight, head.bias).fit_features(train, labels)
residual = ((queries - vim.u) @ vim.principal_subspace).norm(dim=1)
_, centred = within(train)
oas = OAS(assume_centered=True).fit(centred / centred.std(0))
recorded = dict(
    train=train, train_logits=train_logits, labels=labels.int(), queries=queries, logits=logits,
    weight=head.weight.T, bias=head.bias,
    gen=gen(K), gen_top3=gen(3),
    temperature=np.exp(minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10}).x),
    kl_matching=on_logits(detector.KLMatching(None)),
    openmax=on_logits(detector.OpenMax(None, tailsize=20, alpha=3), right),
    vim=vim.predict_features(queries), residual=residual,
    react=on_maps(detector.ReAct(None, None, percentile=0.9)),
    ash_p=on_maps(detector.ASH(None, None, "ash-p", 0.6)),
    ash_b=on_maps(detector.ASH(None, None, "ash-b", 0.65)),
    ash_s=on_maps(detector.ASH(None, None, "ash-s", 0.9)),
    scale=on_maps(detector.SCALE(None, None, 0.85)),
    dice=on_features(detector.DICE(None, head.weight, head.bias, 0.6)),
    fdbd=on_features(detector.fDBD(None, head)),
    nci=on_features(detector.NCI(None, head)), nci_alpha=on_features(detector.NCI(None, head, alpha=0.01)),
    she=on_features(detector.SHE(None, head)),
    nnguide=on_features(detector.NNGuide(None, head, k=10)),
    gradnorm=gradnorm(),
    knn_raw=0.5 * on_features(detector.KNN(None, k=10, normalize=False)) ** 2,
    mahalanobis_pp=tied_distances(unit(train), unit(queries)),
    mahalanobis_half=tied_distances(*(unit(a) * a.double().norm(dim=1, keepdim=True) ** 0.5 for a in (train, queries))),
    mahalanobis_shrunk=tied_distances(train, queries, oas.shrinkage_), oas=oas.shrinkage_,
    typicality=typicality(), mixture=mixture(3),
)  # fmt: skip
np.savez_compressed(
    Path(__file__).parent / "post_hoc.npz",
    origin=f"pytorch-ood {pytorch_ood.__version__} on torch {torch.__version__}, SciPy {scipy.__version__}, "
    f"scikit-learn {sklearn.__version__}, NumPy {np.__version__}",
    **{name: value.detach().numpy() if isinstance(value, torch.Tensor) else value for name, value in recorded.items()},
)
