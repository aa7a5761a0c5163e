"""Result files of a run: results.json, results.md, report.html and metrics.jsonl."""

from quantjax.documented import show_fields
from quantjax.report.files import (
    append_jsonl,
    read_jsonl,
    to_text,
    write_json,
    write_results,
    write_scenes,
)
from quantjax.report.maps import Example
from quantjax.report.openood import openood_csv, write_openood
from quantjax.report.page import Curve, MethodScores
from quantjax.report.schema import check_results

__all__ = [
    "Curve",
    "Example",
    "MethodScores",
    "append_jsonl",
    "check_results",
    "openood_csv",
    "read_jsonl",
    "to_text",
    "write_json",
    "write_openood",
    "write_results",
    "write_scenes",
]

show_fields(__name__)
