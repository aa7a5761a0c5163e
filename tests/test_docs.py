"""README and the pages in docs/: links lead somewhere, commands are ones that parse, table and picture are there."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
SET_UP = ("find", "pip", "ruff", "mypy", "pytest", "python -m venv", "python -m pytest")  # no programs of ours
PICTURE = 300_000  # bytes, at most


class CaughtError(Exception):
    """A program came as far as reading its command line."""


def fenced(text: str) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)


def spans(text: str) -> list[str]:
    """What stands between single backticks, joined where a line ends."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def commands(page: Path) -> list[str]:
    """Every command of a page as "program arguments", comments and folders of programs left out."""
    text = page.read_text()
    lines = [line for block in fenced(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += [span for span in spans(text) if re.match(r"(python|pip|pytest)3? |quantjax-[a-z]+ ", span)]
    words = [shlex.join(shlex.split(line, comments=True)) for line in lines]
    parts = [re.sub(r" '>' \S+$", "", part) for line in words for part in re.split(r" '(?:&&|\|)' ", line)]
    plain = [re.sub(r"^(\.venv/bin/)?(python)?3?", r"\2", part) for part in parts if part]
    return [re.sub("^quantjax-", "python -m experiments.", part) for part in plain]


def ours() -> list[str]:
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) > 25
    return sorted({command for command in found if not command.startswith(SET_UP)})


def module_of(command: str) -> tuple[str, list[str]]:
    """("benchmarks.flow", ["--threads", "1"]) of a command that names a module, or a script by its path."""
    match = re.fullmatch(r"python (?:-m )?(\S+)(.*)", command)
    assert match, command
    return match[1].removesuffix(".py").replace("/", "."), shlex.split(match[2])


def parser_of(module: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """What the module's `main` reads its command line with."""

    def caught(self, *_, **__):
        raise CaughtError(self)

    program = importlib.import_module(module)
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", caught)
        with pytest.raises(CaughtError) as info:
            program.main()
    return info.value.args[0]


def settings_of(module: str):
    """The parser of a program whose flags are the fields of a dataclass, else None."""
    from experiments.images import config
    from experiments.scenes import config as scenes

    return {"experiments.quantod": config.parse, "experiments.uem": scenes.parse}.get(module)


@pytest.mark.parametrize("command", ours())
def test_commands_parse(command, monkeypatch):
    module, arguments = module_of(command)
    known = settings_of(module)
    if module == "quantjax.methods":  # it reads none
        assert not arguments
    elif "--help" in arguments:
        with pytest.raises(SystemExit) as info:
            (known or parser_of(module, monkeypatch).parse_args)(arguments)
        assert info.value.code == 0
    elif arguments or known:
        (known or parser_of(module, monkeypatch).parse_args)(arguments)
    else:  # named in a sentence, which need not repeat what it must be given
        assert parser_of(module, monkeypatch)


def test_flags_named_in_sentences_exist(monkeypatch):
    from experiments.hosts import Hosts
    from experiments.images.config import QuantOD
    from experiments.scenes.config import UEM

    flags = {"--" + name.replace("_", "-") for fields in (QuantOD, UEM, Hosts) for name in fields.__dataclass_fields__}
    for module in {module_of(command)[0] for command in ours()} - {"quantjax.methods"}:
        if not settings_of(module):
            flags |= set(parser_of(module, monkeypatch)._option_string_actions)
    named = {
        flag
        for page in PAGES
        for span in spans(page.read_text())
        for flag in re.findall(r"(?:^| )(--[a-z][a-z-]*)", span)
        if not span.startswith(SET_UP)
    }
    assert named - flags == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_table_of_methods_is_the_registry():
    from quantjax import methods

    [table] = re.findall(
        r"<!-- methods: begin -->\n(.*)<!-- methods: end -->", (ROOT / "docs" / "methods.md").read_text(), re.DOTALL
    )
    assert table == methods.to_markdown(), "paste what python -m quantjax.methods prints"


def test_the_picture_is_small():
    picture = ROOT / "docs" / "images" / "overview.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size <= PICTURE
