"""Tables 1 to 4 and Figures 2 to 4 of QuantOD (Taghikhah et al., AAAI 2024).

The baselines of Tables 1 and 4 are quoted there from other papers, which trained other classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.images.config import PAPER_OUTLIERS
from experiments.papers.plan import AVERAGE, RUN, Line, Measure, Place, Plan

PAPER = "Taghikhah et al., AAAI 2024"
BASE: dict[str, Any] = {"inlier": "cifar10", "outliers": PAPER_OUTLIERS, "protocol": "paper", "backbone": "wrn40_2"}
RATES: tuple[Measure, ...] = ("fpr95", "auroc")
THREE: tuple[Measure, ...] = (*RATES, "average_precision")
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75)  # the text gives Figure 2 no numbers
CURVE_EPOCHS = 25  # of Figure 3


def _numbers(measure: Measure, values: Sequence[str]) -> dict[Place, float]:
    """A measure on each of the paper's sets, and its average."""
    columns = (*PAPER_OUTLIERS, AVERAGE)
    return {Place(column, measure): float(value) for column, value in zip(columns, values, strict=True)}


def _averages(**values: float) -> dict[Place, float]:
    """Measures on average, and the accuracy of the run."""
    measures: Mapping[Any, float] = values
    return {Place(RUN if name == "accuracy" else AVERAGE, name): value for name, value in measures.items()}


def _by_set(label: str, method: str, rates: str, aupr: str, seconds: str) -> Line:
    """A line of Table 1; `rates` are FPR95/AUROC."""
    fpr95, auroc = zip(*(pair.split("/") for pair in rates.split()), strict=True)
    published = _numbers("fpr95", fpr95) | _numbers("auroc", auroc)
    published |= _numbers("average_precision", aupr.split()) | _numbers("total_seconds", seconds.split())
    return Line(label, method, published=published)


def _flow(label: str, fpr95: float, auroc: float, aupr: float, **flags: Any) -> Line:
    return Line(label, "quantod", flags, _averages(fpr95=fpr95, auroc=auroc, average_precision=aupr))


def _on_both(label: str, method: str, *published: Mapping[Place, float], **flags: Any) -> list[Line]:
    """Lines of Figure 4: beside either inlier set."""
    inliers = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
    return [
        Line(f"{label}, {shown}", method, {"inlier": inlier, **flags}, numbers)
        for (inlier, shown), numbers in zip(inliers.items(), published, strict=True)
    ]


TABLE_1 = (
    _by_set(
        "MSP",
        "msp",
        "59.28/88.50 48.49/91.89 59.48/88.20 30.80/95.65 52.15/91.37 56.03/89.83 51.04/90.91",
        "97.16 98.27 97.10 99.13 98.12 97.74 97.92",
        "15.15 6.22 17.23 7.96 13.79 9.05 11.57",
    ),
    _by_set(
        "Mahalanobis",
        "mahalanobis_perturbed",
        "15.00/97.33 12.89/97.62 68.57/84.61 39.22/94.15 42.62/93.23 44.18/92.66 37.08/93.27",
        "99.41 99.47 96.20 98.81 98.60 98.45 98.49",
        "61.03 51.02 54.95 52.76 74.99 58.69 58.91",
    ),
    _by_set(
        "ODIN",
        "odin",
        "49.12/84.97 33.55/91.96 57.40/84.49 15.52/97.04 26.62/94.57 32.05/93.50 35.71/91.09",
        "95.28 98.00 95.82 99.33 98.77 98.54 97.62",
        "19.89 10.64 19.76 11.83 15.10 12.83 15.01",
    ),
    _by_set(
        "Energy",
        "energy",
        "52.79/85.22 35.59/90.96 40.14/89.89 8.26/98.35 27.58/94.24 33.68/92.62 33.01/91.88",
        "95.41 97.64 97.30 99.66 98.67 98.27 97.83",
        "15.49 6.08 15.53 7.82 9.26 7.90 10.35",
    ),
    _by_set(
        "GEM",
        "gem_perturbed",
        "15.06/97.33 13.42/97.59 68.03/84.44 39.46/94.13 42.89/93.27 44.41/92.60 37.21/93.23",
        "99.41 99.47 96.11 98.81 98.61 98.42 98.47",
        "61.03 51.02 54.95 52.76 74.99 58.69 58.91",
    ),
    _by_set(
        "QuantOD",
        "quantod",
        "12.85/97.27 9.39/97.94 36.75/91.04 7.49/98.42 19.05/96.08 17.50/96.39 17.17/96.19",
        "99.40 99.59 97.73 99.70 99.20 99.28 99.15",
        "18.88 7.53 11.28 10.35 9.16 9.09 11.04",
    ),
)
TABLE_2 = tuple(
    Line(label, "quantod", {"backbone": backbone}, published)
    for label, backbone, published in (
        (
            "WideResNet-40-2, 128 features",
            "wrn40_2",
            _averages(accuracy=94.68, fpr95=9.39, auroc=97.94, average_precision=99.59),
        ),
        (
            "ResNet-18, 512 features",
            "resnet18",
            _averages(accuracy=95.10, fpr95=31.01, auroc=94.85, average_precision=98.99),
        ),
    )
)
TABLE_3 = (
    _flow("NICE", 27.68, 94.63, 98.81, flow="nice"),
    _flow("GIN", 18.45, 96.30, 99.18, flow="gin"),
    _flow("RealNVP", 20.18, 95.91, 99.08, flow="realnvp"),
    _flow("Glow, 8 blocks, 2 layers of 512", 17.17, 96.19, 99.15),
    _flow("Glow, 2 blocks", 19.26, 95.89, 99.09, blocks=2),
    _flow("Glow, 4 blocks", 17.67, 96.13, 99.15, blocks=4),
    _flow("Glow, 16 blocks", 17.28, 96.36, 99.21, blocks=16),
    _flow("Glow, 1 layer", 19.80, 95.69, 99.02, layers=1),
    _flow("Glow, 3 layers", 16.98, 96.55, 99.27, layers=3),
    _flow("Glow, 4 layers", 17.03, 96.39, 99.23, layers=4),
    _flow("Glow, 128 neurons", 17.83, 96.35, 98.20, width=128),
    _flow("Glow, 256 neurons", 18.11, 96.22, 99.19, width=256),
    _flow("Glow, 1,024 neurons", 17.77, 96.10, 99.14, width=1024),
)
TABLE_4 = tuple(
    Line(label, method, published=_averages(fpr95=fpr95, auroc=auroc, average_precision=aupr, **about))
    for label, method, fpr95, auroc, aupr, about in (
        ("MSP", "msp", 80.41, 75.53, 93.93, {"accuracy": 75.96, "total_seconds": 12.81}),
        ("ODIN", "odin", 74.64, 77.43, 94.23, {"accuracy": 75.96, "total_seconds": 17.17}),
        ("Energy", "energy", 73.60, 79.56, 94.87, {"accuracy": 75.96, "total_seconds": 12.69}),
        ("QuantOD", "quantod", 67.90, 82.32, 95.48, {"accuracy": 75.55, "total_seconds": 13.89}),
    )
)
MEAN = Line("mean", "quantod", {"loss": "mean"})
FIGURE_2 = (*(Line(f"q = {q:g}", "quantod", {"q": q}) for q in QUANTILES), MEAN)
FIGURE_3 = (Line("q = 0.05", "quantod", {"q": 0.05}), MEAN)
FIGURE_4 = (
    *_on_both("Mahalanobis", "mahalanobis_perturbed", _averages(fpr95=37.08, auroc=93.27), {}),
    *_on_both("VOS", "energy", {}, {}, objective="vos"),
    *_on_both("QuantOD", "quantod", _averages(fpr95=17.17, auroc=96.19), _averages(fpr95=67.90, auroc=82.32)),
)

TABLES = {
    "quantod-1": Plan(
        "Outlier detection beside CIFAR-10",
        f"{PAPER}, Table 1",
        TABLE_1,
        (RATES, ("average_precision", "total_seconds"), ("accuracy",)),
        by_set=True,
        flags=BASE,
    ),
    "quantod-2": Plan(
        "The classifier, with SVHN as the outliers",
        f"{PAPER}, Table 2",
        TABLE_2,
        (("accuracy", *THREE),),
        flags=BASE | {"outliers": ("svhn",)},
    ),
    "quantod-3": Plan("The flow", f"{PAPER}, Table 3", TABLE_3, (THREE,), flags=BASE),
    "quantod-4": Plan(
        "Outlier detection beside CIFAR-100",
        f"{PAPER}, Table 4",
        TABLE_4,
        ((*THREE, "accuracy", "total_seconds"),),
        flags=BASE | {"inlier": "cifar100"},
    ),
}
FIGURES = {
    "quantod-2": Plan(
        "The quantile level", f"{PAPER}, Figure 2", FIGURE_2, (RATES,), by_set=True, flags=BASE, drawing="levels"
    ),
    "quantod-3": Plan(
        "Quantile and mean, epoch by epoch",
        f"{PAPER}, Figure 3",
        FIGURE_3,
        (RATES,),
        flags=BASE | {"outliers": ("isun",), "flow_epochs": CURVE_EPOCHS},
        drawing="epochs",
    ),
    "quantod-4": Plan(
        "Beside Gaussians of classes", f"{PAPER}, Figure 4", FIGURE_4, (RATES,), flags=BASE, drawing="bars"
    ),
}
