"""QuantOD end to end: classifier, features, flow, scores, threshold, report (Taghikhah et al., AAAI 2024).

    python -m experiments.quantod --workdir runs/

With no other flag: the bundled demonstration (digits 0-7 against six outlier sets), under two minutes on two CPU cores.
The paper's experiment, which trains both stages and wants a GPU:

    python -m experiments.quantod --workdir runs/ --inlier cifar10 --data-dir DATA --protocol paper

The paper reports an accuracy of 94.68 % and, in Table 1, 17.17 / 96.19 FPR95 / AUROC on average over its six sets.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import report_errors
from experiments.images.config import (
    HELD_OUT,
    INLIER,
    PUBLISHED,
    TRAINING,
    QuantOD,
    Settings,
    identity,
    parse,
    resolve,
    run_name,
)
from experiments.settings import describe
from experiments.terminal import lasting_streams

if TYPE_CHECKING:
    from experiments.run_folder import Opened


@lasting_streams()
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    config = parse(argv)
    return report_errors(lambda: run(config), "--batch-size or --score-batch-size", debug=config.debug)


def run(flags: QuantOD) -> int:
    """The run, and its results printed; returns the exit status."""
    from experiments.results import show

    start = time.perf_counter()
    folder, finished_before = carry_out(flags)
    show(folder, start, finished_before=finished_before)
    return 0


def carry_out(flags: QuantOD, *, classifier: Path | None = None) -> Opened:
    """Everything the run does, top to bottom; its folder, and whether there was nothing left to do.

    `classifier` is the folder of a run with the same stage 1, which then need not be trained again.
    """
    start = time.perf_counter()
    import jax

    from experiments import hosts, run_folder
    from experiments.images import classifier as stage_1
    from experiments.images import features, flow, outcome
    from experiments.images.config import goes_on
    from experiments.images.scoring import score_sets
    from experiments.images.sets import (
        check_enough,
        check_every_class,
        check_fits,
        content,
        held_out,
        load_sets,
        open_sources,
    )
    from experiments.progress import Progress
    from experiments.results import of_run
    from experiments.start import cache_of, open_devices, open_run
    from quantjax import methods, metrics
    from quantjax.data import fingerprint, rows_of

    # ---- settings and folder
    jax.config.update("jax_default_prng_impl", flags.random_bits)
    config = resolve(flags, accelerator=open_devices(flags.hosts))
    sources = open_sources(config)
    run_identity = identity(config) | content(config, sources)
    opened = open_run(config, run_name(config, run_identity), run_identity, note(config))
    if opened.finished:
        return opened
    folder = opened.folder
    cache = cache_of(folder)

    # ---- data
    sets = load_sets(config, Progress, sources)
    num_classes = len(sets.class_names)
    given = stage_1.read_weights(config, num_classes)
    # --weights may hold a transformer that has no classifier yet; a classifier that goes on has seen all images
    trains = not (given and given.finished) and not goes_on(config)
    kept_out = held_out(config, len(sets.train_images), trained_here=trains)
    fit_rows = slice(0, len(sets.train_images) - kept_out)
    check_every_class(sets, fit_rows)
    check_enough(config.scores, sets.train_labels[fit_rows], num_classes)
    print(sizes(sets, kept_out), flush=True)
    if given is None or goes_on(config):
        check_fits(config, sets)
    if given is None and not any((place / stage_1.FILE).exists() for place in (folder, classifier or folder)):
        stage_1.check_time(flags, config, fit_rows.stop)

    # ---- stage 1: the classifier, given or trained here
    run_folder.begin_run(
        folder, describe(config), run_identity, fingerprint(sets.train_images), overwrite=config.overwrite
    )
    ready = given if given and given.finished else None
    trained = ready or stage_1.train_or_reread(config, given, sets, fit_rows, folder, Progress, also=classifier)

    # ---- features: one backbone pass per set feeds every score that needs no gradient
    extractor = features.build(
        trained.model,
        trained.variables,
        trained.preprocessing,
        config.image_size,
        config.score_batch_size,
        config.precision,
        layers=any("layers" in methods.get(name).reads for name in config.scores),
    )
    images = {INLIER: sets.test_images, **sets.outliers, **{name: one.images for name, one in sets.shifted.items()}}
    if sets.validation_images is not None:
        images[HELD_OUT] = sets.validation_images
    outputs = {name: features.extract(extractor, name, rows, cache, Progress) for name, rows in images.items()}
    train = features.extract(extractor, "training set", sets.train_images, cache, Progress)
    accuracy = 100.0 * metrics.accuracy(outputs[INLIER].logits, sets.test_labels)
    print(f"classifier: {accuracy:.2f} % accuracy on {len(sets.test_labels):,} test images", flush=True)
    if trains and kept_out:
        images[HELD_OUT] = rows_of(sets.train_images, slice(fit_rows.stop, None))
        outputs[HELD_OUT] = features.rows_of(train, slice(fit_rows.stop, None))

    # ---- stage 2: the flow
    trained_flow = None
    if PUBLISHED in config.scores:
        views = [train.features]
        if config.views:
            seen = min(config.views, config.flow_epochs)  # an epoch sees one view: the others would wait in vain
            views = features.extract_views(extractor, sets.train_images, seen, cache, Progress)
        views = [view[fit_rows] for view in views]
        evaluation = {name: outputs[name].features for name in (INLIER, *sets.outliers)}
        trained_flow = flow.fit(config, views, evaluation, folder, Progress)

    # ---- scores
    fit_on = features.rows_of(train, fit_rows)
    rows = methods.TrainingRows(
        fit_on.features, sets.train_labels[fit_rows], num_classes, fit_on.logits, layers=fit_on.layers
    )
    scored, fitted, fit_seconds = {}, {}, {}
    for name in config.scores:
        method = methods.get(name)
        if name == PUBLISHED and trained_flow:  # as trained as stage 1 is: the paper counts neither
            fitted[name], fit_seconds[name] = trained_flow.fitted, 0.0
        else:
            begun = time.perf_counter()
            fitted[name], before = fit_once(method, rows, fitted, fit_seconds)
            # a Gaussian or a bank is fitted on the training features: their extraction belongs to its fit
            spent = before or train.seconds
            fit_seconds[name] = time.perf_counter() - begun + spent if method.learns_from else 0.0
        inputs = outputs | ({TRAINING: fit_on} if name == PUBLISHED else {})
        scored[name] = score_sets(method, fitted[name], extractor, images, inputs, config.score_batch_size, Progress)

    # ---- thresholds, from held-out inliers alone
    calibrations = {name: outcome.calibrate(config, scored[name]) for name in config.scores}
    chosen = config.detector
    result_rows = outcome.rows(config, sets, scored, outputs, fit_seconds, extractor.compile_seconds)

    # ---- the detector and the report
    if not hosts.is_first():
        return opened
    warnings = [outcome.doubted(config, result_rows, scored), outcome.too_few(config, calibrations[chosen])]
    for warning in filter(None, warnings):
        print(warning, file=sys.stderr, flush=True)
    outcome.save_detector(
        folder / "detector", config, trained, sets.class_names, chosen, fitted[chosen], calibrations[chosen],
        scored[chosen],
    )  # fmt: skip
    noted = " ".join(filter(None, (note(config), *warnings)))
    results = {
        "rows": result_rows,
        "outliers": list(sets.outliers),
        "accuracy": accuracy,
        "calibration": outcome.in_percent(calibrations[chosen]),
        **outcome.benchmark(config, sets, scored, outputs),
        "calibrations": {name: outcome.in_percent(c) for name, c in calibrations.items()},
        "methods": {name: outcome.about(name, fitted[name]) for name in config.scores},
        "stage_seconds": {"classifier": trained.seconds, "flow": trained_flow.seconds if trained_flow else 0.0},
        **of_run(config, outcome.public(run_identity, config), noted, start),
    }
    outcome.write(folder, results, scored, calibrations, trained_flow.curve if trained_flow else None)
    return opened


def fit_once(method: Any, rows: Any, fitted: dict[str, Any], seconds: dict[str, float]) -> tuple[Any, float]:
    """(the fitted method, seconds that its parts took before); a sum takes the parts that are fitted already."""
    if method.join is None or not set(method.parts) <= set(fitted):
        return method.fit(rows, method.defaults), 0.0
    return method.join(rows, [fitted[part] for part in method.parts]), max(seconds[part] for part in method.parts)


def note(config: Settings) -> str:
    """What kind of run this is, in a sentence."""
    if config.inlier != "digits":
        return f"Preset {config.preset}, protocol {config.protocol} (times are of the whole sets in either)."
    stage1 = "given weights" if config.weights and config.objective == "cross_entropy" else f"{config.epochs} epochs"
    return (
        f"This is the bundled demonstration: digits 0-7, {config.backbone} for {stage1}, {config.blocks} "
        f"{config.flow} blocks of width {config.width} for {config.flow_epochs} epochs. The paper's experiment is "
        "`python -m experiments.quantod --workdir runs/ --inlier cifar10 --data-dir DATA --protocol paper`."
    )


def sizes(sets: Any, kept_out: int) -> str:
    """The number of images of every set."""
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in sets.outliers.items()) or "none"
    if sets.auxiliary is not None:
        counts += f"; outliers to train with: {len(sets.auxiliary):,}"
    return (
        f"inliers: {len(sets.train_images):,} to train ({kept_out:,} of them held out), "
        f"{len(sets.test_images):,} to test, {len(sets.class_names)} classes; outliers: {counts}"
    )


if __name__ == "__main__":
    sys.exit(main())
