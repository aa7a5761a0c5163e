"""Every size of every question, at full and at toy size."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """What is measured."""

    budgets: bool  # whether a question's time budget binds
    repeats: int  # measured turns
    precisions: tuple[str, ...]  # of the classifier
    peer_mode: str | None  # of torch.compile; None leaves peers eager
    peer_seconds: float  # that one peer may compile
    product: int  # side of the square products of the ceilings
    copy_megabytes: int

    # images
    classifier: str  # of quantjax.extractors.BACKBONES
    classes: int
    image: int  # side
    image_batch: int  # images of one call that scores
    perturbed_batch: int
    train_images: int  # of one epoch
    batch: int  # of one training step, classifier and flow
    table_images: int  # inliers, and outliers, of the whole table
    table_batch: int
    loop_images: int  # of one turn of the authors' loop
    loop_workers: int
    peer_steps: int  # training steps of one turn of torch's
    generators: tuple[str, ...]  # of random bits

    # --train
    epochs: int  # of the classifier
    flow_epochs: int
    views: int  # of the training images

    # flow
    dimensions: tuple[int, ...]
    blocks: int
    layers: int
    width: int
    flow_rows: int  # of one call that scores
    epoch_rows: int
    flow_forms: int  # how many forms of the gradient are compared
    q: float

    # banks: rows, dimension, queries
    small_bank: tuple[int, int, int]
    large_bank: tuple[int, int, int]
    bank_block: int
    gaussian_rows: int

    # scenes
    backbone: str  # of quantjax.extractors.FEATURE_BACKBONES
    window: tuple[int, int]
    window_batches: tuple[int, ...]
    scene: tuple[int, int]
    strides: tuple[int | tuple[int, int], ...]
    scene_classes: int
    components: int  # of the mixture, per class
    channels: int  # of the decoder
    token_hidden: int
    crop: tuple[int, int]  # of a training step of the estimator
    crop_batches: tuple[int, ...]  # the first one that fits
    gmm_rows: int

    profiles: int | None  # hot functions that are profiled at the most; None for all
    golden_network: str  # whose recorded logits are compared
    suite: tuple[str, ...]  # folders of tests/ that run on the device
    suite_seconds: float


FULL = Sizes(
    budgets=True,
    repeats=7,
    precisions=("bfloat16", "tensorfloat32", "float32"),
    peer_mode="max-autotune",
    peer_seconds=75.0,
    product=8192,
    copy_megabytes=4000,
    classifier="wrn40_2",
    classes=10,
    image=32,
    image_batch=4096,
    perturbed_batch=2048,
    train_images=50_000,
    batch=128,
    table_images=10_000,
    table_batch=2500,
    loop_images=2048,
    loop_workers=1,
    peer_steps=40,
    generators=("threefry2x32", "unsafe_rbg"),
    epochs=100,
    flow_epochs=50,
    views=50,
    dimensions=(128, 512),
    blocks=8,
    layers=2,
    width=512,
    flow_rows=16_384,
    epoch_rows=50_000,
    flow_forms=6,
    q=0.05,
    small_bank=(50_000, 128, 10_000),
    large_bank=(1_281_167, 2048, 4096),
    bank_block=65_536,
    gaussian_rows=100_000,
    backbone="dinov2_vitb14_reg",
    window=(518, 1036),
    window_batches=(1, 4, 9, 15),
    scene=(1024, 2048),
    strides=(140, (259, 518)),
    scene_classes=19,
    components=5,
    channels=256,
    token_hidden=512,
    crop=(518, 1036),
    crop_batches=(16, 8, 4),
    gmm_rows=43_808,
    profiles=None,
    golden_network="wrn16_2",
    suite=("flows", "losses", "scores", "extractors"),
    suite_seconds=90.0,
)

SMOKE = Sizes(
    budgets=False,
    repeats=1,
    precisions=("bfloat16",),
    peer_mode=None,
    peer_seconds=20.0,
    product=64,
    copy_megabytes=1,
    classifier="wrn10_1",
    classes=4,
    image=8,
    image_batch=4,
    perturbed_batch=2,
    train_images=8,
    batch=4,
    table_images=4,
    table_batch=4,
    loop_images=4,
    loop_workers=0,
    peer_steps=1,
    generators=("unsafe_rbg",),
    epochs=2,
    flow_epochs=2,
    views=2,
    dimensions=(6,),
    blocks=1,
    layers=0,
    width=8,
    flow_rows=8,
    epoch_rows=8,
    flow_forms=2,
    q=0.05,
    small_bank=(16, 8, 4),
    large_bank=(40, 16, 4),
    bank_block=16,
    gaussian_rows=16,
    backbone="dinov2_toy_reg",
    window=(28, 56),
    window_batches=(2,),
    scene=(56, 112),
    strides=((14, 28),),
    scene_classes=3,
    components=2,
    channels=8,
    token_hidden=8,
    crop=(28, 56),
    crop_batches=(2,),
    gmm_rows=24,
    profiles=5,
    golden_network="wrn10_1",
    suite=(),
    suite_seconds=0.0,
)
