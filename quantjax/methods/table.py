"""The registry as a Markdown table, for the docs: python -m quantjax.methods."""

from __future__ import annotations

from quantjax import markdown
from quantjax.methods import registry
from quantjax.methods.base import Method

HEADER = ("Method", "Score reads", "Fit learns from", "Defaults", "Source of the score; of the defaults")


def to_markdown() -> str:
    """One line per registered method."""
    return markdown.table(HEADER, [_line(registry.get(name)) for name in registry.names()]) + "\n"


def _line(method: Method) -> tuple[str, ...]:
    defaults = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                         for key, value in method.defaults.items() if value is not None)  # fmt: skip
    return (
        f"`{method.name}`",
        ", ".join(method.reads),
        ", ".join(method.learns_from) or "–",
        defaults or "–",
        "; ".join(text for text in (method.paper, method.source) if text),
    )
