"""results.md and report.html of anomaly segmentation: tables, and images beside their score maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from quantjax.report import maps, markup
from quantjax.report.maps import Example
from quantjax.report.tables import (
    Table,
    ap_fpr_table,
    auroc_component_table,
    drawn,
    percent,
    pixel_threshold_table,
    speed_table,
    to_markdown,
    unique,
)


def render(results: Mapping[str, Any], examples: Mapping[str, Sequence[Example]], class_names: Sequence[str]) -> str:
    """The page as text; raises ValueError for maps that do not fit their image."""
    sections = [
        markup.tiles(_tiles(results)),
        *(_evaluation(results, examples, class_names) if results["rows"] else []),
        markup.settings(results, ("config", "versions"), hidden=("rows", "miou", "miou_after", "note")),
    ]
    return markup.document(_title(results), results.get("note"), sections)


def _evaluation(
    results: Mapping[str, Any], examples: Mapping[str, Sequence[Example]], class_names: Sequence[str]
) -> list[str]:
    table, more = ap_fpr_table(results), _more_tables(results)
    return [
        markup.section("results", table.title, markup.table(table)),
        *(_maps(name, shown, class_names) for name, shown in examples.items() if shown),
        markup.section("more", "More tables", "".join(map(markup.titled_table, more))),
    ]


def to_text(results: Mapping[str, Any]) -> str:
    """results.md: the layout of Table 3 of UEM (Nayal et al., 2024), then AUROC, components and seconds."""
    parts = [
        f"# {_title(results)}",
        *([str(results["note"])] if results.get("note") else []),
        f"{_known(results)} {drawn(results).capitalize()}, {results['device']}, {results['seconds']:.1f} s.",
    ]
    if not results["rows"]:
        return "\n\n".join([*parts, "No evaluation set was given: nothing was evaluated."]) + "\n"
    for table in (ap_fpr_table(results), *_more_tables(results)):
        parts += [f"## {table.title}", table.note, to_markdown(table)]
    return "\n\n".join(parts) + "\n"


def _more_tables(results: Mapping[str, Any]) -> list[Table]:
    at_threshold = [pixel_threshold_table(results)] if all("outliers_found" in row for row in results["rows"]) else []
    return [*at_threshold, auroc_component_table(results), speed_table(results)]


def _title(results: Mapping[str, Any]) -> str:
    return f"Anomaly segmentation, inliers: {results['inlier']}"


def _known(results: Mapping[str, Any]) -> str:
    """What became of the known classes, in a sentence."""
    before, after = (results["miou"][name] for name in ("before", "after"))
    if before is None and after is None:
        return "No segmentor stands beside these scores, so there is no mIoU."
    return f"Inlier mIoU {percent(before)} before and {percent(after)} after the second stage{_how(results)}."


def _how(results: Mapping[str, Any]) -> str:
    """Whether the second mIoU was measured, or follows from the first."""
    return f" ({results['miou_after']})" if results.get("miou_after") else ""


def _tiles(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    miou = results["miou"]
    before = f"{percent(miou['before'])} before the second stage{_how(results)}"
    known = [("Inlier mIoU", percent(miou["after"]), before)] if miou["after"] is not None else []
    run = ("Run", f"{results['seconds']:,.0f} s", f"{results['device']}, {drawn(results)}")
    if not results["rows"]:
        return [("Outliers", "none", "nothing was evaluated"), *known, run]
    best = max(results["rows"], key=lambda row: row["ap"])
    sets = unique(row["dataset"] for row in results["rows"])
    fastest = max(row["images_per_second"] for row in results["rows"])
    return [
        (
            f"Highest AP: {best['variant']} {best['method']}, {best['dataset']}",
            f"{best['ap']:.2f} %",
            f"FPR95 {best['fpr95']:.2f} %",
        ),
        *known,
        ("Images per second", f"{fastest:.2f}", f"{len(sets)} evaluation set{'s' if len(sets) > 1 else ''}"),
        run,
    ]


def _maps(name: str, examples: Sequence[Example], class_names: Sequence[str]) -> str:
    limits = maps.score_limits(examples)
    note = (
        "Label: anomalies orange, ignored pixels grey. Scores: bright is outlying; the colours of each method run from "
        "the 1st to the 99th percentile of its scores over the scenes shown."
    )
    legend = ""
    if class_names and any(example.classes is not None for example in examples):
        legend = markup.colour_legend(zip(class_names, maps.class_colours(len(class_names)), strict=True))
    rows = []
    for example in examples:
        titles = "".join(f"<span>{escape(title)}</span>" for title in maps.columns(example))
        source = f'<img src="{maps.strip(example, limits)}" alt="{escape(example.name)}">'
        rows.append(markup.figure(example.name, f'<div class="strip"><div>{titles}</div>{source}</div>'))
    return markup.section(
        f"maps-{escape(name)}", f"Score maps, {name}", f'<p class="hint">{note}</p>{legend}{"".join(rows)}'
    )
