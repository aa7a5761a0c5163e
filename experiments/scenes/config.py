"""Every setting of `experiments.uem` and its default: one frozen dataclass that is also the command's flags.

As in `images.config`: a field that is None takes its value from the preset, from the bundled demonstration or from
the machine; `resolve` fills it in, and only resolved settings are run, hashed and written.
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
    "swin_b",
    "swin_t",
    "vit_small_scratch",
    "vit_tiny_scratch",
]
Method = Literal["id", "ood", "lr", "msp", "max_logit", "entropy", "energy", "rba", "msp_probability"]
METHODS: tuple[Method, ...] = Method.__args__  # type: ignore[attr-defined]
COMPARED = tuple(method for method in METHODS if method != "msp_probability")  # it ranks as msp until it saturates
Untrained = Literal["patches", "residual", "gaussian", "flow"]
UNTRAINED: tuple[Untrained, ...] = Untrained.__args__  # type: ignore[attr-defined]
Pair = tuple[int, int]
MIX = "_mix"  # <inlier>_mix: the inlier test scenes with unseen objects pasted


@dataclasses.dataclass(frozen=True, kw_only=True)
class UEM(shared.Flags):
    """Train an inlier segmentor, then its unknown estimation module, and mark unknown objects pixel by pixel.

    With no flags this runs the bundled demonstration: rendered street scenes that need no download.
    """

    inlier: Literal["streets", "camvid", "cityscapes"] = "streets"
    """Inlier scenes: streets (bundled, rendered), camvid, cityscapes."""
    objects: Unset[str] = None
    """Objects that are pasted as outliers: bundled, coco, cutouts, or a folder of RGBA images or of images/ and
    masks/. Default: bundled for streets, coco otherwise."""
    evaluate: Unset[tuple[str, ...]] = None
    """Evaluation sets: road_anomaly, fs_laf, smiyc_at, smiyc_ot, or <inlier>_mix, the inlier test scenes with objects
    pasted that training never showed. Commas or spaces separate them; none: a threshold alone, which needs no outlier.
    Default: streets_mix for streets, road_anomaly and fs_laf otherwise."""
    image_height: Unset[int] = None
    """Resize every image to this height in pixels. Default: as they are."""
    preset: Unset[Literal["reference", "paper", "short"]] = None
    """reference: the authors' released code; paper: the text of Nayal, Shoeb, Güney 2024, where the two differ; short:
    reference with a memory that runs under 10,000 steps can fill. Default: reference, for the demonstration short."""
    variant: Literal["g-d", "d-d", "g-g"] | Untrained = "g-d"
    """Heads of segmentor and estimator: D = linear, G = Gaussian mixture (Table 3). Or nothing is trained, and patches
    of the frozen backbone are judged by their nearest reference patches, their residual beside principal components,
    one Gaussian, or a flow (see docs/scenes.md)."""
    maps: Unset[tuple[str, ...]] = None
    """Maps of the backbone that patches are taken from, block_9 say, where nothing is trained. Default: the last
    quarter of its blocks."""
    scales: tuple[float, ...] = (1.0,)
    """Of a window, at which the backbone sees it, where nothing is trained: scores of all scales are added up."""
    reference_scenes: int = 20
    """Training scenes whose patches are the reference, where nothing is trained."""
    per_class: bool = False
    """Fit one Gaussian mean for every class of the reference scenes' labels; needs variant gaussian."""
    backbone: Unset[BackboneName] = None
    """Default: dinov2_vitb14_reg (section 4); vit_tiny_scratch for the demonstration. The scratch ones are trained with
    the decoder in stage 1, then frozen like the others."""
    backbone_weights: str | None = None
    """Published weights: a file (.pth, .safetensors) or hf:<owner>/<repository>. The scratch backbones take none."""
    swin_shift: Unset[Literal["larger_maps", "always"]] = None
    """Whether swin_b moves its windows on maps of one window, too: always, as segmentors do, or on larger maps alone,
    as classifiers do. Default: as the source of the weights does."""
    segmentor: Path | None = None
    """A segmentor.safetensors of a finished run of the same backbone and head: skips stage 1."""
    steps: Unset[int] = None
    """Stage 1 steps. Default 90,000 (released code); 500 for the demonstration."""
    estimator_steps: Unset[int] = None
    """Stage 2 steps. Default 4,000 (released code); 500 for the demonstration."""
    warmup: int = 1500
    """Steps of linear warm-up of either stage (released code). A stage without more steps, and each of preset short,
    warms up for at most a tenth of them."""
    learning_rate: Unset[float] = None
    """Peak of the warm-up; then linear decay to 1e-7. Default 5e-4 (released code); 1e-3 for the demonstration."""
    batch_size: Unset[int] = None
    """Crops of one step over all devices. Default 16 (released scripts: four per device on four); 8 for the
    demonstration."""
    crop: Unset[Pair] = None
    """Height and width of training crops. Default 518 1036 (section 4), 112 224 for the demonstration, cut down to
    multiples of the backbone's stride: 512 1024 for clip_vitb16 and swin_b."""
    window: Unset[Pair] = None
    """Height and width of the windows of inference. Default: the crop."""
    stride: Unset[Pair] = None
    """Step between windows. Default 140 140 (released code), cut down like the crop, and at most the window."""
    window_batch: Unset[int] = None
    """Windows of one inference step over all devices. Default 8 on an accelerator, 2 on a CPU."""
    channels: Unset[int] = None
    """Channels of the decoder and of the space where heads work. Default 256; 64 for the scratch backbones, 48 for the
    demonstration."""
    components: int = 5
    """Gaussians per class (section 4)."""
    paste_probability: float = 1.0
    """Share of training scenes with an object pasted in stage 2 (the authors' run names)."""
    object_share: Unset[tuple[float, float]] = None
    """Resize every pasted object so that its longer side is a random share, between these two, of the scene's height.
    Default: keep its size, as the paper does; 0.25 0.6 for the demonstration, whose scenes are small."""
    hue: Unset[float] = None
    """Largest turn of the hue by colour jitter, in turns of the colour circle. Default 0.5 (released code); 0.05 for
    the scratch backbones, which have little but colour to start from."""
    freeze_statistics: bool = True
    """Keep the decoder's batch statistics frozen in stage 2, as the paper says; False follows the released code, which
    lets them drift."""
    per_device_sinkhorn: bool = False
    """Balance assignments over each device's own crops, as the released code does, instead of over the whole batch."""
    methods: tuple[Method, ...] = COMPARED
    """Scores to evaluate: id, ood and lr of Table 2, and baselines on the segmentor's logits."""
    detector: Method = "lr"
    """Score of the detector that is saved."""
    baselines: tuple[Literal["pebal", "rba"], ...] = ()
    """Also fine-tune the segmentor's last layer with PEBAL's or RbA's loss (Table 4); needs variant d-d."""
    exact: Unset[bool] = None
    """Sort all pixels for AP, AUROC and FPR95 instead of streaming them. Default: up to 60 million pixels a set."""
    workers: Unset[int] = None
    """Processes that prepare training crops; 0 = threads of this one. Default: 0 on a CPU, 8 with an accelerator."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(UEM):
    """The same with every None filled in, but for those that mean "none": what a run computes with."""

    objects: str
    evaluate: tuple[str, ...]
    preset: Literal["reference", "paper", "short"]
    backbone: BackboneName
    steps: int
    estimator_steps: int
    learning_rate: float
    batch_size: int
    crop: Pair
    window_batch: int
    channels: int
    hue: float
    precision: Precision
    workers: int

    @property
    def untrained(self) -> bool:
        """Whether nothing is trained; then window and stride may be None, for those that fit the reference scenes."""
        return self.variant in UNTRAINED

    @property
    def evaluation_sets(self) -> tuple[str, ...]:
        """The evaluation sets, none of them for --evaluate none."""
        return () if self.evaluate == (shared.NO_SETS,) else self.evaluate


# The bundled demonstration: sizes at which two CPU cores need under four minutes.
DEMONSTRATION: dict[str, Any] = {
    "objects": "bundled",
    "evaluate": ("streets_mix",),
    "preset": "short",
    "backbone": "vit_tiny_scratch",
    "steps": 500,
    "estimator_steps": 500,
    "object_share": (0.25, 0.6),
    "learning_rate": 1e-3,
    "batch_size": 8,
    "channels": 48,
}
# Section 4 of the paper; steps, rate and batch of the released code and its scripts.
FULL_SIZE: dict[str, Any] = {
    "objects": "coco",
    "evaluate": ("road_anomaly", "fs_laf"),
    "preset": "reference",
    "backbone": "dinov2_vitb14_reg",
    "steps": 90_000,
    "estimator_steps": 4000,
    "learning_rate": 5e-4,
    "batch_size": 16,
}
DEMONSTRATION_CROP, FULL_CROP = (112, 224), (518, 1036)
STRIDE = 140
PLACE = ("window_batch", "workers")  # beside settings.PLACE, what no number depends on
PATCHES = ("maps", "scales", "reference_scenes", "per_class")  # what no number depends on where networks are trained
TRAINING = ("preset", "steps", "estimator_steps", "warmup", "learning_rate", "batch_size", "crop", "channels",
            "components", "paste_probability", "hue", "freeze_statistics", "per_device_sinkhorn", "methods", "detector",
            "baselines")  # fmt: skip


def parse(argv: list[str] | None = None) -> UEM:
    """The settings given on the command line; unknown or malformed flags exit with status 2."""
    config = tyro.cli(UEM, args=argv, prog="python -m experiments.uem")
    if config.evaluate is None:
        return config
    names = (name for text in config.evaluate for name in text.split(",") if name)
    return dataclasses.replace(config, evaluate=tuple(names))


def resolve(config: UEM, *, accelerator: bool) -> Settings:
    """The settings that the run computes with; raises ValueError on a combination that cannot run."""
    from quantjax.extractors import SCRATCH

    bundled = config.inlier == "streets"
    config = fill(config, **(DEMONSTRATION if bundled else FULL_SIZE))
    config = fill(config, crop=_whole_cells(config, DEMONSTRATION_CROP if bundled else FULL_CROP))
    if config.variant not in UNTRAINED:
        config = fill(config, window=config.crop)
    config = fill(
        config,
        window_batch=8 if accelerator else 2,
        workers=8 if accelerator else 0,
        precision=default_precision(accelerator),
        channels=64 if config.backbone in SCRATCH else 256,
        hue=0.05 if config.backbone in SCRATCH else 0.5,
    )
    if config.window is not None and config.variant not in UNTRAINED:
        step = _whole_cells(config, (STRIDE, STRIDE))
        config = fill(config, stride=tuple(min(sides) for sides in zip(step, config.window, strict=True)))
    settings = Settings(**shared.values_of(config))
    check(settings)
    return settings


def _whole_cells(config: UEM, sides: Pair) -> Pair:
    """The sides, in pixels, cut down to multiples of the backbone's stride."""
    from quantjax.extractors import FEATURE_BACKBONES

    cell = FEATURE_BACKBONES[str(config.backbone)].stride
    return sides[0] // cell * cell, sides[1] // cell * cell


def check(settings: Settings) -> None:
    """Raise ValueError for values that no run can have."""
    from quantjax.checks import check_interval
    from quantjax.extractors import FEATURE_BACKBONES

    least = {"steps": 1, "estimator_steps": 1, "batch_size": 1, "window_batch": 1, "channels": 4, "components": 1}
    least |= {"reference_scenes": 1}
    shared.check_least(settings, least | {"warmup": 0, "workers": 0})
    check_interval("--learning-rate", settings.learning_rate, 0.0, 1.0, closed="right")
    check_interval("--hue", settings.hue, 0.0, 0.5)
    check_interval("--paste-probability", settings.paste_probability, 0.0, 1.0)
    if settings.object_share is not None and not 0.0 < settings.object_share[0] <= settings.object_share[1] <= 1.0:
        raise ValueError(f"--object-share must be two numbers, 0 < low <= high <= 1, got {settings.object_share}")
    if settings.image_height is not None:
        check_interval("--image-height", settings.image_height, 16, 8192)
    backbone = FEATURE_BACKBONES[settings.backbone]
    for name in ("crop", "window"):
        sides = getattr(settings, name)
        if sides is None:
            continue
        if min(sides) < backbone.stride or (backbone.kind == "plain" and any(s % backbone.stride for s in sides)):
            fits = tuple(max(1, round(side / backbone.stride)) * backbone.stride for side in sides)
            raise ValueError(
                f"--{name} must be multiples of {backbone.stride} pixels for {settings.backbone}, got {sides[0]} "
                f"{sides[1]}; the nearest are {fits[0]} {fits[1]}"
            )
    given = (settings.stride, settings.window)
    if None not in given and any(not 1 <= step <= side for step, side in zip(*given, strict=True)):  # type: ignore
        raise ValueError(f"--stride must lie between 1 and the window {settings.window}, got {settings.stride}")
    _check_sets(settings)
    _check_weights(settings)
    _check_patches(settings)
    preprocessing.check(settings)
    shared.check_seed_and_run(settings)
    shared.check_data_dir(settings)


def _check_sets(settings: Settings) -> None:
    if not settings.evaluate:
        raise ValueError(f"--evaluate must name at least one set, or {shared.NO_SETS}; it names nothing")
    if shared.NO_SETS in settings.evaluation_sets:
        raise ValueError(f"--evaluate {shared.NO_SETS} stands alone, got {' '.join(settings.evaluate)}; leave it out")
    own = settings.inlier + MIX
    for name in settings.evaluation_sets:
        if name.endswith(MIX) and name != own:
            raise ValueError(f"--evaluate {name} needs --inlier {name.removesuffix(MIX)}; with this inlier set: {own}")
    if settings.evaluation_sets:
        check_choices("--evaluate", settings.evaluation_sets, ("road_anomaly", "fs_laf", "smiyc_at", "smiyc_ot", own))
    check_choices("--methods", settings.methods, METHODS)
    if settings.baselines and settings.variant != "d-d":
        raise ValueError(f"--baselines fine-tune a linear head: give --variant d-d, got {settings.variant}")


def _check_weights(settings: Settings) -> None:
    from quantjax.extractors import SCRATCH

    given = settings.backbone_weights is not None
    if given and settings.backbone in SCRATCH:
        raise ValueError(f"--backbone-weights: {settings.backbone} is trained here and takes none; choose another one")
    if settings.swin_shift is not None and settings.backbone != "swin_b":
        raise ValueError(f"--swin-shift is of swin_b, got --backbone {settings.backbone}; leave it out")
    if settings.weights_key is not None and not given:
        raise ValueError(f"--weights-key {settings.weights_key} chooses within --backbone-weights: give these, too")
    if not given and settings.backbone not in SCRATCH and settings.segmentor is None:
        raise ValueError(
            f"--backbone-weights must name the weights of {settings.backbone}: a file or hf:<owner>/<repository> "
            "(facebook/dinov2-with-registers-base, say); without pretrained weights use --backbone vit_small_scratch"
        )
    if settings.segmentor is not None and not settings.segmentor.is_file():
        raise ValueError(f"--segmentor must be the segmentor.safetensors of a finished run, got {settings.segmentor}")


def _check_patches(settings: Settings) -> None:
    if settings.per_class and settings.variant != "gaussian":
        raise ValueError(f"--per-class is of --variant gaussian, got {settings.variant}; leave it out")
    if not settings.untrained:
        if settings.maps is not None:
            raise ValueError(f"--maps is of variants {', '.join(UNTRAINED)}, got {settings.variant}; leave it out")
        return
    from quantjax import patches

    patches.backbone(settings.backbone, settings.maps, scales=settings.scales)
    if (settings.window is None) != (settings.stride is None):
        raise ValueError("--window and --stride go together where nothing is trained: give both or neither")


def identity(config: Settings) -> dict[str, Any]:
    """The part of the settings that decides the numbers; given weights count by content.

    What stands for scenes and objects is `sets.content`.
    """
    from quantjax.data.content import file_digest

    settings = shared.computed(config, (*PLACE, *(TRAINING if config.untrained else PATCHES)))
    if config.segmentor is not None:
        settings["segmentor"] = file_digest(config.segmentor)
    if config.backbone_weights is not None and Path(config.backbone_weights).is_file():
        settings["backbone_weights"] = file_digest(Path(config.backbone_weights))
    return settings


def run_name(config: Settings, identity: dict[str, Any]) -> str:
    """uem-<inlier>-<variant>-<first 8 hexadecimal digits of the settings' hash>."""
    return shared.run_name(config.run, f"uem-{config.inlier}-{config.variant}", identity)
