"""UEM end to end: segmentor, unknown estimation module, likelihood-ratio maps, report (Nayal, Shoeb, Güney 2024).

    python -m experiments.uem

With no flag: the bundled demonstration (rendered street scenes, objects that training never showed), under four minutes
on two CPU cores. The paper's experiment, which wants a GPU, published DINOv2 weights, Cityscapes, COCO and the
evaluation sets, and took the authors 90,000 + 4,000 steps:

    python -m experiments.uem --inlier cityscapes --objects coco --evaluate road_anomaly,fs_laf,smiyc_at,smiyc_ot \\
        --data-dir DATA --variant g-d --backbone dinov2_vitb14_reg \\
        --backbone-weights hf:facebook/dinov2-with-registers-base

The paper reports AP / FPR95 of 92.86 / 8.95 on RoadAnomaly and 79.02 / 1.62 on Fishyscapes Lost and Found (Table 2).
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from experiments.errors import report_errors
from experiments.scenes.config import UEM, identity, parse, resolve, run_name
from experiments.settings import describe
from experiments.terminal import lasting_streams

if TYPE_CHECKING:
    from typing import Any

    from experiments.run_folder import Opened
    from experiments.scenes.config import Settings
    from experiments.scenes.sets import Sets


@lasting_streams()
def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    config = parse(argv)
    return report_errors(lambda: run(config), "--batch-size or --window-batch", debug=config.debug)


def run(flags: UEM) -> int:
    """The run, and its results printed; returns the exit status."""
    from experiments.results import show

    start = time.perf_counter()
    folder, finished_before = carry_out(flags)
    show(folder, start, finished_before=finished_before)
    return 0


def carry_out(flags: UEM) -> Opened:
    """Everything the run does, top to bottom; its folder, and whether there was nothing left to do."""
    start = time.perf_counter()
    import jax

    from experiments import hosts, run_folder
    from experiments.progress import Progress
    from experiments.results import of_run
    from experiments.scenes import baselines, evaluation, networks, outcome, stages, storage
    from experiments.scenes.sets import check_sets, fingerprint, open_sets
    from experiments.start import open_devices, open_run
    from quantjax import parallel, segmentation

    # ---- settings and folder
    config = resolve(flags, accelerator=open_devices(flags.hosts))
    sets = open_sets(config)
    run_identity = identity(config) | dict(sets.content) | storage.content_from_hub(config)
    opened = open_run(config, run_name(config, run_identity), run_identity, outcome.note(config))
    if opened.finished:
        return opened
    folder = opened.folder

    # ---- data and given weights, before anything is written
    check_sets(config, sets)
    print(outcome.sizes(sets), flush=True)
    if config.untrained:
        return judge_patches(config, sets, run_identity, opened, start)
    pretrained, overrides = storage.read_pretrained(config)
    if config.segmentor is not None:
        overrides = storage.read_overrides(config.segmentor) | storage.chosen_overrides(config)
    preprocessing = storage.read_preprocessing(config)
    network = networks.segmentor(config, len(sets.class_names), overrides, preprocessing)
    estimator = networks.estimator(config)
    key = jax.random.key(config.seed)
    keys = [jax.random.fold_in(key, i) for i in range(4)]
    blank = jax.numpy.zeros((1, *config.crop, 3), jax.numpy.float32)
    start_weights = partial(segmentation.init_segmentor, network)
    begin = partial(jax.eval_shape, start_weights) if config.segmentor else jax.jit(start_weights)
    variables = begin(keys[0], blank, pretrained)
    about = storage.about_segmentor(config, sets.class_names, overrides, preprocessing)
    given = None
    if config.segmentor is not None:
        given = storage.load(config.segmentor, stages.final(config, variables), about)
    content = fingerprint(config, sets)
    hosts.check_same("the training scenes", {"fingerprint": content}, hosts.REMEDY)
    run_folder.begin_run(folder, describe(config), run_identity, content, overwrite=config.overwrite)
    evaluation.clean(folder)

    # ---- stage 1: the inlier segmentor, given or trained here, then frozen
    segmentor, first = given, None
    if segmentor is None:
        segmentor, first = stages.train_or_reread_segmentor(
            config, network, variables, about, sets, keys[1], folder, Progress
        )
    weights = parallel.replicate(segmentor)

    # ---- stage 2: the unknown estimation module
    trained = stages.train_estimator(config, network, estimator, segmentor, sets, (keys[2], keys[3]), folder, Progress)
    storage.save(folder / storage.ESTIMATOR, trained.variables, {"variant": config.variant})

    # ---- score maps and what they are worth
    scorer = evaluation.make_scorer(config, network, estimator, segmentor)
    unknown = parallel.replicate(trained.variables)
    score = partial(scorer, (weights, unknown))
    before = evaluation.mean_iou(score, sets.test, len(sets.class_names), Progress)
    after, how = before, "by construction, as nothing of the segmentor changed"
    if trained.segmentor is not segmentor:  # batch statistics drifted, see --freeze-statistics
        how = "measured"
        score = partial(scorer, (parallel.replicate(trained.segmentor), unknown))
        after = evaluation.mean_iou(score, sets.test, len(sets.class_names), Progress)
    evaluate = partial(evaluation.evaluate, config, folder=folder, progress=Progress)
    evaluated = {
        name: evaluate(name, score, scenes, variant=config.variant, names=config.methods)
        for name, scenes in sets.evaluation.items()
    }
    rows = [row for one in evaluated.values() for row in one.rows]
    miou = {"before": before, "after": after}

    # ---- Table 4: what fine-tuning the segmentor instead does
    for index, name in enumerate(config.baselines):
        tuned_network, tuned = baselines.fine_tune(
            config, name, network, segmentor, sets, jax.random.fold_in(key, 4 + index), folder, Progress
        )
        run_baseline = baselines.make_scorer(config, name, tuned_network, len(sets.class_names))
        score = partial(run_baseline, (parallel.replicate(tuned), ()))
        miou[name] = evaluation.mean_iou(score, sets.test, len(sets.class_names), Progress)
        for dataset, scenes in sets.evaluation.items():
            rows += evaluate(dataset, score, scenes, variant="fine-tuned", names=(name,)).rows

    # ---- the detector to apply afterwards
    threshold = outcome.save_detector(
        folder / "detector",
        config,
        network,
        estimator,
        (trained.segmentor, trained.variables),
        overrides,
        sets,
        Progress,
    )

    # ---- the report
    if not hosts.is_first():
        return opened
    warning = outcome.doubted(config, rows)
    if warning:
        print(warning, file=sys.stderr, flush=True)
    noted = " ".join(filter(None, (outcome.note(config), warning)))
    results = {
        "rows": rows,
        "datasets": list(sets.evaluation),
        "miou": miou,
        "miou_after": how,
        "calibration": threshold,
        "parameters": outcome.parameters(segmentor, trained.variables),
        "stages": outcome.stages(first, trained.stage),
        **of_run(config, outcome.public(run_identity, config), noted, start),
    }
    outcome.write(folder, results, {name: one.scenes for name, one in evaluated.items()}, sets.class_names)
    return opened


def judge_patches(config: Settings, sets: Sets, run_identity: dict[str, Any], opened: Opened, start: float) -> Opened:
    """A run that trains nothing: fit, evaluate, calibrate, report."""
    from experiments import hosts, run_folder
    from experiments.progress import Progress
    from experiments.results import of_run
    from experiments.scenes import evaluation, outcome, untrained
    from experiments.scenes.sets import fingerprint

    content = fingerprint(config, sets)
    hosts.check_same("the training scenes", {"fingerprint": content}, hosts.REMEDY)
    run_folder.begin_run(opened.folder, describe(config), run_identity, content, overwrite=config.overwrite)
    evaluation.clean(opened.folder)
    found = untrained.carry_out(config, sets, opened.folder, Progress)
    if not hosts.is_first():
        return opened
    warning = outcome.doubted(config, found.rows)
    if warning:
        print(warning, file=sys.stderr, flush=True)
    results = {
        "rows": found.rows,
        "datasets": list(sets.evaluation),
        "miou": {"before": None, "after": None},
        "calibration": found.calibration,
        "parameters": found.parameters,
        "stages": {"fit": {"seconds": found.seconds}},
        **of_run(
            config,
            outcome.public(run_identity, config),
            " ".join(filter(None, (outcome.note(config), warning))),
            start,
        ),
    }
    outcome.write(opened.folder, results, found.scenes, sets.class_names)
    return opened


if __name__ == "__main__":
    sys.exit(main())
