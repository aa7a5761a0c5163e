"""Who may import whom, read from the source; and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONCEPTS = ("extractors", "flows", "heads", "scores", "losses", "metrics", "data")
GROUND = {"types", "checks", "rows", "labels"}
CONCEPT = GROUND | {"gaussian", "resize"}
ALLOWED = {
    "types": set(),
    "checks": set(),
    "rows": set(),
    "labels": {"types"},
    "bundled": GROUND,
    "gaussian": GROUND,
    "resize": GROUND,
    "dropout": GROUND,
    "extractors": CONCEPT | {"dropout"},
    "flows": CONCEPT | {"dropout"},
    "heads": CONCEPT,
    "scores": CONCEPT,
    "losses": CONCEPT,
    "metrics": GROUND,
    "data": GROUND | {"bundled"},
    "convert": GROUND | {"extractors", "flows", "heads"},
    "segmentation": CONCEPT
    | {"extractors", "heads", "scores", "losses", "train", "inference", "parallel", "data.jitter"},
    "classification": CONCEPT | {"extractors", "losses", "data", "train", "parallel"},
    "parallel": GROUND,
    "inference": GROUND | {"parallel"},
    "train": GROUND | {"parallel"},
    "report": GROUND,
    "methods": CONCEPT | {"flows", "scores"},
    "detector": CONCEPT
    | {"inference", "parallel", "extractors", "heads", "methods", "metrics", "scores", "segmentation"},
}
# a room's rule is too narrow for one of its files: fitting a flow trains it
ALSO = {"flows/fit.py": {"train", "losses", "parallel"}}
HEAVY = {"torch", "tensorflow", "tensorflow_datasets", "sklearn", "scipy", "matplotlib", "distrax", "grain", "PIL"}
HEAVY |= {"huggingface_hub"}


def modules() -> list[Path]:
    return sorted((ROOT / "quantjax").rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "quantjax").with_suffix("").parts
    return parts[0]


def imports(path: Path, top_level_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_import_only_what_the_plan_allows(path):
    here = room(path)
    if here == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in ("experiments", "tests", "benchmarks"), name
        if parts[0] == "quantjax" and len(parts) > 1 and parts[1] != here:
            also = ALSO.get(str(path.relative_to(ROOT / "quantjax")), set())
            allowed = ALLOWED[here] | also
            assert {parts[1], ".".join(parts[1:3])} & allowed, f"{here} may not import quantjax.{parts[1]}"
        if here in ("data", "metrics", "report"):
            assert parts[0] != "flax", f"{here} may not import flax"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    assert not {n.split(".")[0] for n in imports(path, top_level_only=True)} & HEAVY


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_parallel_compiles_and_nothing_reads_the_environment(path):
    calls = {ast.unparse(n) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
    if room(path) != "parallel":
        assert not calls & {"jax.jit", "jax.pmap"}
    assert not calls & {"sys.argv", "os.environ"}


@pytest.mark.parametrize("package", ["quantjax", "quantjax.data", "quantjax.report", "experiments.config"])
def test_importing_starts_no_backend_and_no_heavy_package(package):
    code = (
        f"import sys, {package}\n"
        "heavy = {'torch', 'tensorflow', 'sklearn', 'scipy', 'matplotlib', 'distrax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "if 'jax' in sys.modules:\n"
        "    from jax._src import xla_bridge\n"
        "    assert not xla_bridge._backends, 'a JAX backend was started'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
