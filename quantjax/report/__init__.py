"""Result files of a run: results.json, results.md, report.html and metrics.jsonl."""

from quantjax.report.files import append_jsonl, check_results, read_jsonl, write_json, write_results, write_text
from quantjax.report.page import Curve, MethodScores

__all__ = [
    "Curve",
    "MethodScores",
    "append_jsonl",
    "check_results",
    "read_jsonl",
    "write_json",
    "write_results",
    "write_text",
]
