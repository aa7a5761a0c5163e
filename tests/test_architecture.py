"""Who may import whom, read from the source; and what importing costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from quantjax.documented import is_named_tuple

ROOT = Path(__file__).resolve().parent.parent
CONCEPTS = ("extractors", "flows", "heads", "scores", "losses", "metrics", "data")
GROUND = {"types", "checks", "rows", "labels", "atomic", "documented", "markdown", "trees", "machine"}
CONCEPT = GROUND | {"gaussian", "resize"}
ALLOWED = {
    "types": {"documented"},
    "documented": set(),
    "checks": set(),
    "atomic": set(),
    "markdown": set(),
    "machine": set(),
    "trees": {"types"},
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
    | {"extractors", "heads", "scores", "losses", "train", "inference", "parallel", "metrics", "data.jitter"},
    "classification": CONCEPT | {"extractors", "losses", "data", "train", "parallel"},
    "parallel": GROUND,
    "hosts": GROUND,
    "inference": GROUND | {"parallel"},
    "train": GROUND | {"parallel", "hosts"},
    "report": GROUND,
    "methods": CONCEPT | {"flows", "scores"},
    "patches": CONCEPT | {"extractors", "inference", "methods"},
    "detector": CONCEPT
    | {"inference", "parallel", "extractors", "heads", "methods", "metrics", "patches", "scores", "segmentation"}
    | {"data.arrays", "data.pairs"},
}
# a room's rule is too narrow for some of its files: fitting a flow trains it, fitting a sum scores all training rows
ALSO = {f"flows/{name}.py": {"train", "losses", "parallel"} for name in ("fit", "together")}
ALSO["methods/combined.py"] = {"parallel"}
HEAVY = {"torch", "tensorflow", "tensorflow_datasets", "sklearn", "scipy", "matplotlib", "distrax", "grain", "PIL"}
HEAVY |= {"huggingface_hub", "pillow_heif", "h5py", "pyarrow"}


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


def test_importing_starts_no_backend_and_no_heavy_package():
    code = (
        "import sys, quantjax, quantjax.data, quantjax.convert, experiments.images.config, experiments.scenes.config\n"
        "assert 'jax' not in sys.modules\n"
        "import quantjax.report\n"
        "heavy = {'torch', 'tensorflow', 'sklearn', 'scipy', 'matplotlib', 'distrax'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "if 'jax' in sys.modules:\n"
        "    from jax._src import xla_bridge\n"
        "    assert not xla_bridge._backends, 'a JAX backend was started'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("package", ["quantjax.convert", "quantjax.data"])
def test_public_names_of_a_package_are_there(package):
    module = importlib.import_module(package)
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


PROGRAMS = {"quantod": "images", "uem": "scenes", "predict": "both", "evaluate": "both", "tables": "both"}
SIDES = {**PROGRAMS, "images": "images", "scenes": "scenes", "papers": "both"}


def side(path: Path) -> str:
    """The command whose part a file of experiments/ is: "images", "scenes", or "both" where it serves both."""
    parts = path.relative_to(ROOT / "experiments").with_suffix("").parts
    return SIDES.get(parts[0], "shared")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.py")), ids=lambda p: p.stem)
def test_the_commands_share_what_stands_beside_them_and_nothing_of_each_other(path):
    seen = {".".join(name.split(".")[1:2]) for name in imports(path) if name.split(".")[0] == "experiments"}
    if path.parent.name in ("images", "scenes"):  # a part of a command, which starts none
        assert not seen & set(PROGRAMS)
    own = {"images": {"images"}, "scenes": {"scenes"}, "both": {"images", "scenes"}, "shared": set()}[side(path)]
    assert seen & {"images", "scenes"} <= own
    if path.parent.name != "papers":  # which carries out runs
        assert not seen & set(PROGRAMS) - {path.stem}


@pytest.mark.parametrize("name", [*sorted(p.parent.name for p in (ROOT / "quantjax").glob("*/__init__.py")), "types"])
def test_help_shows_what_the_fields_of_public_tuples_are(name):
    module = importlib.import_module(f"quantjax.{name}")
    exported = [getattr(module, one) for one in getattr(module, "__all__", vars(module))]
    for one in filter(is_named_tuple, exported):
        for field in one._fields:
            assert not getattr(one, field).__doc__.startswith("Alias for field"), f"{one.__name__}.{field}"
