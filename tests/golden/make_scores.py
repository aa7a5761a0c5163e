"""Record every score's paper formula computed by torch in float64. Run: python tests/golden/make_scores.py

Signs are the papers' (higher = more like an inlier). The network of the perturbed scores is a small convolution,
its mean over the image as features, and a linear layer.
"""

from pathlib import Path

import numpy as np
import torch

torch.manual_seed(14)
torch.set_default_dtype(torch.float64)
K, D, C, SIDE = 4, 6, 3, 5
TEMPERATURE, EPSILON, EPSILON_FEATURES = 1000.0, 0.0048, 0.0005
STD = torch.tensor([0.247, 0.244, 0.261])

logits = 4 * torch.randn(9, K)
labels = torch.arange(200) % K
mix = torch.randn(D, D)
train = torch.randn(200, D) @ mix + 2.0 * torch.randn(K, D)[labels] + 3.0
queries = torch.cat([train[:5] + 0.1 * torch.randn(5, D), 3.0 + 4.0 * torch.randn(5, D)])


def fit(features, labels, classes):
    means = torch.stack([features[labels == k].mean(0) for k in range(classes)])
    residual = features - means[labels]
    return means, torch.linalg.inv(residual.T @ residual / len(features) + 1e-6 * torch.eye(features.shape[1]))


def confidences(features, means, precision):
    """The authors' way: per class the diagonal of the full product."""
    return torch.stack([-0.5 * torch.diag((features - m) @ precision @ (features - m).T) for m in means], 1)


def nearest(features, bank, k):
    unit = torch.nn.functional.normalize
    return torch.topk(unit(features) @ unit(bank).T, k, dim=1).values[:, -1]


kernel, bias = torch.randn(D, C, 3, 3), torch.randn(D)
head = torch.randn(K, D)
images = torch.randn(6, C, SIDE, SIDE)  # standardised


def network(x):
    return torch.relu(torch.nn.functional.conv2d(x, kernel, bias, padding=1)).mean((2, 3))


def step_down(loss, epsilon):
    """Images after one signed step that lowers `loss`, each channel's step divided by its std."""
    x = images.clone().requires_grad_()
    loss(x).sum().backward()
    return images - epsilon * x.grad.sign() / STD[:, None, None]


def temperature_loss(x):
    scaled = network(x) @ head.T / TEMPERATURE
    return torch.nn.functional.cross_entropy(scaled, scaled.argmax(1), reduction="none")


means, precision = fit(train, labels, K)
background_mean, background_precision = fit(train, torch.zeros_like(labels), 1)
image_labels = torch.arange(64) % K
image_features = network(torch.randn(64, C, SIDE, SIDE) + 0.3 * image_labels[:, None, None, None])
image_means, image_precision = fit(image_features, image_labels, K)

classes = confidences(queries, means, precision)
background = confidences(queries, background_mean, background_precision)[:, 0]
odin_logits = network(step_down(temperature_loss, EPSILON)) @ head.T
moved = step_down(lambda x: -confidences(network(x), image_means, image_precision).max(1).values, EPSILON_FEATURES)
recorded = dict(
    logits=logits,
    msp=logits.softmax(1).max(1).values,
    max_logit=logits.max(1).values,
    energy=torch.logsumexp(logits, 1),
    energy_t2=2 * torch.logsumexp(logits / 2, 1),
    train=train,
    queries=queries,
    mahalanobis=classes.max(1).values,
    gem=torch.logsumexp(classes, 1),
    relative_mahalanobis=classes.max(1).values - background,
    knn_cosine=nearest(queries, train, 10),
    kernel=kernel.permute(2, 3, 1, 0),
    bias=bias,
    head=head.T,
    images=images.permute(0, 2, 3, 1),
    std=STD,
    odin=(odin_logits / TEMPERATURE).softmax(1).max(1).values,
    odin_unmoved=(network(images) @ head.T / TEMPERATURE).softmax(1).max(1).values,
    image_features=image_features,
    mahalanobis_moved=confidences(network(moved), image_means, image_precision).max(1).values,
)
np.savez_compressed(
    Path(__file__).parent / "scores.npz",
    origin=f"torch {torch.__version__}, float64 on a CPU",
    labels=labels.numpy().astype(np.int32),
    image_labels=image_labels.numpy().astype(np.int32),
    **{name: value.detach().numpy().astype(np.float64) for name, value in recorded.items()},
)
