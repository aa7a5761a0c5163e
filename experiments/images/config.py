"""Every setting of `experiments.quantod` and its default: one frozen dataclass that is also the command's flags.

A field that is None takes its value from the preset, from the bundled demonstration, or from the machine; `resolve`
fills it in, and only the resolved settings are run, hashed and written to disk.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments import preprocessing
from experiments import settings as shared
from experiments.settings import Precision, Unset, check_choices, default_precision, fill

BackboneName = Literal[
    "wrn40_2",
    "wrn16_2",
    "wrn10_1",
    "densenet_bc100_12",
    "resnet18",
    "resnet50",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "dinov2_vits14",
    "dinov2_vitb14",
    "dinov2_vitl14",
    "dinov2_vits14_reg",
    "dinov2_vitb14_reg",
    "dinov2_vitl14_reg",
    "clip_vitb16",
    "clip_vitl14",
    "clip_vitb16_gelu",
    "clip_vitl14_gelu",
    "deit_tiny16",
    "deit_small16",
    "vit_base16",
    "swin_t",
    "vit_small_scratch",
    "vit_tiny_scratch",
]
# names, beside the outlier sets, of the test inliers, of those held out, and of what a flow was trained on
INLIER, HELD_OUT, TRAINING = "inlier", "held out", "training rows"
PUBLISHED = "quantod"  # the method whose flow the command's own flags describe
WINNER = "energy_quantod_layers"  # chosen on inliers and synthetic outliers, docs/methods.md
PAPER_OUTLIERS = ("textures", "svhn", "places365", "lsun_c", "lsun_r", "isun")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantOD(shared.Flags):
    """Fit a quantile-trained normalizing flow to a classifier's features and find outliers with it.

    With no flags this runs the bundled demonstration: digits 0-7 against six outlier sets that need no download.
    """

    inlier: str = "digits"
    """Inlier set: digits (bundled), cifar10, cifar100, svhn, tfds:<name>, or NAME=/path to class folders, an .npz or a
    list of images (.txt); of one's own set without a split 20 % of each class, drawn once and for all, are the test
    images."""
    outliers: Unset[tuple[str, ...]] = None
    """Outlier sets: published names, names of folders under --data-dir, or NAME=/path; none: thresholds alone, which
    need no outlier. Default: the bundled sets for digits, the six sets of Table 1 otherwise."""
    image_size: Unset[int] = None
    """Side of the images in pixels: short side resized, then the centre cut, as torchvision does. Default: 32; 224 for
    transformers, which need a multiple of their patch, but 32 where a network for 224 judges sets of small images
    (cifar10, cifar100, svhn, digits): so no image set is told by its sharpness."""
    short_side: Unset[int] = None
    """Pixels to which the short side is resized before the centre is cut. Default: --image-size; 256 for 224 of
    networks published for ImageNet, as torchvision does."""
    network_size: Unset[int] = None
    """Side of what the network sees: images are resized to it, bicubic. Default: as the images; 224 for networks
    published for 224."""
    backbone: Unset[BackboneName] = None
    """Classifier, or a frozen transformer of whose class token stage 1 trains a linear probe. Default: wrn40_2
    (QuantOD); wrn10_1 for the bundled demonstration."""
    weights: Path | None = None
    """Trained classifier (.npz, .safetensors, .pt): skips stage 1, or begins it with another --objective. Transformers
    need it: published weights of the transformer, on which stage 1 trains the probe, or classifier.safetensors of a
    finished run."""
    objective: Literal["cross_entropy", "logit_norm", "outlier_exposure", "energy_margin", "vos"] = "cross_entropy"
    """What stage 1 trains for: QuantOD's cross-entropy, or LogitNorm (temperature 0.04), outlier exposure (weight 0.5),
    energy fine-tuning (margins -23 and -5, weight 0.1), VOS (1,000 features a class, 10,000 samples, weight 0.1, from
    40 % of the epochs on), each as its paper says. With --weights the classifier goes on from there."""
    auxiliary: str | None = None
    """Set of outliers to train with, named as --outliers; its training images where it has any. For --objective
    outlier_exposure and energy_margin; no set that is evaluated."""
    preprocessing: Unset[Literal["energy_ood", "cifar", "imagenet", "clip", "none"]] = None
    """Input standardisation. Default: what the weights' publishers used, as far as the names in the file or the
    network's tell them, which is printed; networks trained here use energy_ood's in preset paper and none in preset
    reference. cifar: mean .4914 .4822 .4465, deviation .2023 .1994 .2010."""
    resident_mb: float = 4000.0
    """Megabytes that the decoded images of one set in files may take in memory; those of a larger set are decoded anew
    by every pass over them, for which stage 1 must be given, or be a linear probe."""
    class_order: Literal["text", "numbers"] = "text"
    """How class folders are numbered: by name as text (1, 10, 2), as torchvision does, or as numbers (1, 2, 10)."""
    preset: Literal["paper", "reference", "best"] = "paper"
    """Follow the paper's text, or the authors' released code where the two differ. best: what docs/methods.md found to
    do best instead, flows that begin as Gaussians (quantod_pp, quantod_layers and their sums with Energy) without the
    published one."""
    flow: Literal["glow", "realnvp", "gin", "nice"] = "glow"
    """Coupling block (QuantOD, Table 3)."""
    blocks: Unset[int] = None
    """Coupling blocks. Default 8 (QuantOD, Table 3); 4 for the demonstration."""
    layers: int = 2
    """Hidden-to-hidden linear layers of each subnet; a subnet has two more, in and out (QuantOD, Table 3)."""
    width: Unset[int] = None
    """Neurons of each hidden layer. Default 512 (QuantOD, Table 3); 128 for the demonstration."""
    clamp: float = 3.0
    """Bound on the log-scale of a coupling block (QuantOD, Table 3)."""
    loss: Literal["quantile", "mean", "min"] = "quantile"
    """Statistic of the batch's log-likelihoods that is maximised (QuantOD, eq. 4)."""
    q: float = 0.05
    """Quantile level, 0 <= q < 1; preset reference also reads 0 as the minimum and 1 as the mean, as its code does."""
    epochs: Unset[int] = None
    """Stage 1 epochs. Default 100 (QuantOD); 10 for the demonstration; 50 for a linear probe; 10, at a learning rate of
    0.001, where an --objective goes on from --weights (energy fine-tuning)."""
    flow_epochs: Unset[int] = None
    """Stage 2 epochs. Default 50 (paper), 25 (reference); 20 for the demonstration."""
    views: Unset[int] = None
    """Flip-and-crop views of the training set the flow sees, cached; epoch e uses view e mod V; 0 = the plain images.
    Default: as many as flow epochs on an accelerator, 5 on a CPU; 0 for the demonstration."""
    shuffle: Unset[bool] = None
    """Shuffle the flow's training rows every epoch. Default: yes in preset paper, file order in reference."""
    scores: Unset[tuple[str, ...]] = None
    """Methods to evaluate, by their names in the table that python -m quantjax.methods prints. Default: all of them."""
    detector: Unset[str] = None
    """Method of the detector that is saved, one of --scores. Default: quantod where it is evaluated, else the first; of
    the demonstration energy_quantod_layers, which does best in docs/methods.md."""
    protocol: Literal["paper", "full", "openood"] = "full"
    """full: whole outlier sets. paper: each capped at 15 batches of 128, shuffled, mean of three draws. openood: the
    benchmark whose lists are in --image-lists, outliers positive, near and far sets apart."""
    image_lists: Path | None = None
    """For --protocol openood, folder of one benchmark's lists, benchmark_imglist/cifar10 of OpenOOD 1.5: what is
    trained on, calibrated on and tested on. Their images are looked for in --data-dir and beside benchmark_imglist."""
    full_spectrum: bool = False
    """Of --protocol openood, also count inliers whose look is shifted as inliers, beside the plain benchmark."""
    random_bits: Literal["threefry2x32", "unsafe_rbg"] = "threefry2x32"
    """Generator of all random draws: threefry2x32 gives the same numbers on any device count; unsafe_rbg does not, is
    meant for accelerators, and is slower on a CPU."""
    batch_size: Unset[int] = None
    """Rows of one training step over all devices. Default 128 (QuantOD); 32 for the demonstration."""
    accumulate: int = 1
    """Parts in which stage 1 works through a batch, to save memory; each part has batch statistics of its own."""
    score_batch_size: Unset[int] = None
    """Images of one scoring step; of cached features 2,048 rows whatever it says. Default 1024 on an accelerator, 128
    on a CPU; 64 and 16 for transformers."""
    calibration_tpr: float = 0.95
    """Share of held-out inliers the threshold must accept (QuantOD, "Log-Likelihood Based Threshold")."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(QuantOD):
    """The same with every None filled in: what a run computes with."""

    outliers: tuple[str, ...]
    image_size: int
    backbone: BackboneName
    blocks: int
    width: int
    batch_size: int
    epochs: int
    flow_epochs: int
    views: int
    shuffle: bool
    scores: tuple[str, ...]
    detector: str
    precision: Precision
    score_batch_size: int

    @property
    def outlier_sets(self) -> tuple[str, ...]:
        """The outlier sets, none of them for --outliers none."""
        return () if self.outliers == (shared.NO_SETS,) else self.outliers


# The bundled demonstration: sizes at which two CPU cores need under two minutes.
DEMONSTRATION: dict[str, Any] = {
    "backbone": "wrn10_1",
    "blocks": 4,
    "width": 128,
    "batch_size": 32,
    "epochs": 10,
    "flow_epochs": 20,
    "views": 0,
}
# QuantOD, "Meta-parameters".
FULL_SIZE: dict[str, Any] = {"backbone": "wrn40_2", "blocks": 8, "width": 512, "batch_size": 128, "epochs": 100}
# Linear probes: the side that their transformers were trained at last or are evaluated at, and quick epochs.
PROBE: dict[str, Any] = {"image_size": 224, "epochs": 50}
SMALL_IMAGES = ("cifar10", "cifar100", "svhn", "digits")
# of no run before them; where they are as runs before had them the run's name stays
LATER = {
    "short_side": None,
    "network_size": None,
    "objective": "cross_entropy",
    "auxiliary": None,
    "full_spectrum": False,
}
PLACE = ("score_batch_size", "resident_mb", "image_lists")  # beside settings.PLACE, what no number depends on
OF_THE_FLOW = ("flow", "blocks", "layers", "width", "clamp", "loss", "q", "flow_epochs", "views", "shuffle")
# what decides nothing of the classifier
AFTER_STAGE_ONE = (*PLACE, *OF_THE_FLOW, "outliers", "scores", "detector", "protocol", "calibration_tpr")


def parse(argv: list[str] | None = None) -> QuantOD:
    """The settings given on the command line; unknown or malformed flags exit with status 2."""
    return tyro.cli(QuantOD, args=argv, prog="python -m experiments.quantod")


def resolve(config: QuantOD, *, accelerator: bool) -> Settings:
    """The settings that the run computes with; raises ValueError on a combination that cannot run."""
    from quantjax import flows, methods
    from quantjax.bundled.images import BUNDLED_OUTLIERS
    from quantjax.classification import FINE_TUNING_EPOCHS

    config = _benchmark(config)
    demonstration, probe = config.inlier == "digits", is_probe(config.backbone)
    if config.preset == "best":
        _check_no_published_flow(config)
    config = _sizes(config)
    if probe:
        config = fill(config, **PROBE, score_batch_size=64 if accelerator else 16)  # gradients keep all tokens
    elif goes_on(config):
        config = fill(config, epochs=FINE_TUNING_EPOCHS)
    config = fill(config, **(DEMONSTRATION if demonstration else FULL_SIZE))
    config = fill(
        config,
        image_size=32,
        outliers=BUNDLED_OUTLIERS if demonstration else PAPER_OUTLIERS,
        flow_epochs=flows.PRESETS[config.preset].epochs,
        shuffle=flows.PRESETS[config.preset].shuffle,
        scores=tuple(name for name in methods.names() if config.preset != "best" or name != PUBLISHED),
        precision=default_precision(accelerator),
        score_batch_size=1024 if accelerator else 128,
    )
    assert config.scores is not None
    wanted = [*((WINNER,) if demonstration or config.preset == "best" else ()), PUBLISHED, *config.scores, ""]
    config = fill(config, detector=next(name for name in wanted if name in (*config.scores, "")))
    config = fill(config, views=config.flow_epochs if accelerator else 5)
    if config.preset == "reference" and config.loss == "quantile" and config.q in (0.0, 1.0):
        config = dataclasses.replace(config, loss="min" if config.q == 0.0 else "mean", q=0.05)
    settings = Settings(**shared.values_of(config))
    check(settings)
    return settings


def _benchmark(config: QuantOD) -> QuantOD:
    """With the sets that the lists of --protocol openood are of; raises ValueError where the flags contradict them."""
    from quantjax.data.openood import find_lists

    if config.protocol != "openood":
        for name in ("image_lists", "full_spectrum"):
            if getattr(config, name):
                raise ValueError(f"{shared.flag(name)} belongs to --protocol openood: give both, or neither")
        return config
    if config.image_lists is None:
        raise ValueError(
            "--protocol openood needs --image-lists FOLDER, that of a benchmark: benchmark_imglist/cifar10"
        )
    lists = find_lists(config.image_lists, full_spectrum=config.full_spectrum)
    if config.inlier not in (QuantOD.inlier, lists.inlier) or config.outliers is not None:
        raise ValueError(
            f"--protocol openood takes its sets from {config.image_lists}, inliers {lists.inlier}, outliers "
            f"{' '.join(lists.outliers)}: leave --inlier and --outliers out"
        )
    return dataclasses.replace(config, inlier=lists.inlier, outliers=lists.outliers)


def _check_no_published_flow(config: QuantOD) -> None:
    """Raise ValueError where flags speak of the flow that preset best does not fit."""
    way_out = "give --preset paper or reference for it"
    if PUBLISHED in (config.scores or ()):
        raise ValueError(f"--scores {PUBLISHED} is the published flow, which --preset best does not fit: {way_out}")
    plain = QuantOD()
    for name in OF_THE_FLOW:
        if getattr(config, name) != getattr(plain, name):
            raise ValueError(
                f"{shared.flag(name)} is a setting of the published flow, which --preset best does not fit: {way_out}"
            )


def _sizes(config: QuantOD) -> QuantOD:
    """What is known of the sizes of a network that is published for one size; others have None."""
    from quantjax.extractors import BACKBONES

    published = BACKBONES.get(config.backbone or "")
    if published is None or published.side is None:
        return config
    small = config.inlier in SMALL_IMAGES
    config = fill(config, image_size=32 if small else published.side)
    if config.image_size == published.side:
        return fill(config, short_side=published.short_side)
    return fill(config, network_size=published.side) if small else config


def is_probe(backbone: str | None) -> bool:
    """Whether this is a frozen transformer under a linear probe."""
    from quantjax.extractors import PROBES

    return backbone in PROBES


def goes_on(config: QuantOD) -> bool:
    """Whether stage 1 trains given weights further."""
    return config.weights is not None and config.objective != "cross_entropy"


def check(settings: Settings) -> None:
    """Raise ValueError for values that no run can have."""
    from quantjax import methods
    from quantjax.checks import check_interval

    if not 0.0 <= settings.q < 1.0:
        raise ValueError(f"--q must lie in [0, 1), got {settings.q}; for the mean use --loss mean")
    check_interval("--calibration-tpr", settings.calibration_tpr, 0.0, 1.0, closed="neither")
    check_interval("--clamp", settings.clamp, 0.0, float("inf"), closed="neither")
    least = {"blocks": 1, "layers": 0, "width": 1, "views": 0, "flow_epochs": 1, "batch_size": 2, "score_batch_size": 1}
    least |= {"accumulate": 1}
    ready = settings.weights and not is_probe(settings.backbone) and not goes_on(settings)
    least |= {"epochs": 0 if ready else 1}
    shared.check_least(settings, least)
    if settings.batch_size % settings.accumulate:
        raise ValueError(
            f"--accumulate must divide --batch-size, {settings.batch_size}, got {settings.accumulate}; change either"
        )
    check_interval("--image-size", settings.image_size, 8, 4096)
    check_interval("--resident-mb", settings.resident_mb, 0.0, float("inf"))
    if settings.network_size is not None:
        check_interval("--network-size", settings.network_size, 8, 4096)
    if settings.short_side is not None:
        check_interval("--short-side", settings.short_side, settings.image_size, 4096)
    shared.check_seed_and_run(settings)
    shared.check_data_dir(settings)
    if not settings.outliers:
        raise ValueError("--outliers must name at least one set, got none")
    if shared.NO_SETS in settings.outliers and settings.outlier_sets:
        raise ValueError(
            f"--outliers {shared.NO_SETS} stands alone, got {' '.join(settings.outliers)}; a set of that name is given "
            "as NAME=/path"
        )
    check_choices("--scores", settings.scores, methods.names())
    check_choices("--detector", (settings.detector,), settings.scores)
    preprocessing.check(settings)
    if settings.weights_key is not None and settings.weights is None:
        raise ValueError(f"--weights-key {settings.weights_key} chooses within --weights: give that file, too")
    if settings.weights is not None and not settings.weights.is_file():
        raise ValueError(f"--weights must be a file (.npz, .safetensors, .pt), got {settings.weights}")
    check_objective(settings)
    if is_probe(settings.backbone):
        check_probe(settings)


def check_objective(settings: Settings) -> None:
    """Raise ValueError unless the objective suits the network and has the auxiliary outliers that it reads."""
    from quantjax.classification import OBJECTIVES

    reads = [name for name, how in OBJECTIVES.items() if how.auxiliary]
    if settings.objective != "cross_entropy" and is_probe(settings.backbone):
        raise ValueError(
            f"--objective {settings.objective} trains a whole network, and that of --backbone {settings.backbone} is "
            "frozen: leave --objective out, or name a convolutional network"
        )
    if settings.auxiliary is None:
        if settings.objective in reads:
            raise ValueError(f"--objective {settings.objective} needs --auxiliary, a set of outliers to train with")
        return
    if settings.objective not in reads:
        raise ValueError(
            f"--auxiliary {settings.auxiliary} is not read by --objective {settings.objective}: leave it out, or train "
            f"with --objective {' or '.join(reads)}"
        )
    path = label_and_path(settings.auxiliary)[1]
    known = {label_and_path(name)[1]: "--outliers" for name in settings.outlier_sets}
    known[label_and_path(settings.inlier)[1]] = "--inlier"
    if path in known:
        raise ValueError(
            f"--auxiliary {settings.auxiliary} stands under {known[path]}, too: a set to train with as outliers cannot "
            "judge the result; name another set, or leave it out there"
        )


def check_probe(settings: Settings) -> None:
    """Raise ValueError unless a linear probe has a transformer, and images of whole patches."""
    from quantjax.extractors import FEATURE_BACKBONES

    name, patch = settings.backbone, FEATURE_BACKBONES[settings.backbone].stride
    flag, size = "--network-size", settings.network_size
    if size is None:
        flag, size = "--image-size", settings.image_size
    if settings.weights is None:
        raise ValueError(
            f"--backbone {name} is frozen and needs --weights FILE: the transformer's published weights, or "
            "classifier.safetensors of a finished run"
        )
    if size % patch:
        fit = max(1, round(size / patch)) * patch
        raise ValueError(f"{flag} must be a multiple of {patch}, the patch of {name}, got {size}; give {fit}")


def identity(config: Settings) -> dict[str, Any]:
    """The part of the settings that decides the numbers; weights count by content, not by path.

    What stands for the images is `sets.content`.
    """
    from quantjax.data.content import file_digest

    settings = shared.computed(config, PLACE)
    settings = {name: value for name, value in settings.items() if name not in LATER or value != LATER[name]}
    return settings if config.weights is None else settings | {"weights": file_digest(config.weights)}


def label_and_path(name: str) -> tuple[str, str]:
    """What a set is called and what `open_source` opens, of `name` or `label=/path`; a label holds no separator.

    So `/a/lr=0.1/images` is a path, and is called so.
    """
    label, equals, path = name.partition("=")
    if not equals or "/" in label or "\\" in label:
        return name, name
    return label, str(Path(path).expanduser())


def run_name(config: Settings, identity: dict[str, Any]) -> str:
    """quantod-<inlier>-<first 8 hexadecimal digits of the settings' hash>."""
    inlier = Path(label_and_path(config.inlier)[0]).name.replace(":", "_")
    return shared.run_name(config.run, f"quantod-{inlier}", identity)
