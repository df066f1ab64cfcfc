"""Every command in the README and docs names a script that exists and flags that it knows; every link has a target."""

import os
import re
import shlex
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from pipelines.costs.rates import BY_DESIGN, NEVER, read_tables

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = sorted(path for path in (ROOT / "pipelines").glob("*.py") if path.read_text().startswith("#!"))


def commands(page: Path) -> list[str]:
    """Command lines of a page's fenced blocks, continuation lines joined, a prompt taken off."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`((?:python|make|torchrun|gristmill) [^`\n]+)`", page.read_text(encoding="utf-8"))
    lines = [line.strip().removeprefix("$ ") for line in lines]
    return [
        line for line in lines if re.match(r"(\w+=\S+ )*(python|make|torchrun|ray job submit|(\./)?gristmill)\s", line)
    ]


@lru_cache
def help_of(*words: str) -> str:
    here = os.environ | {"PYTHONPATH": str(ROOT)}  # as ./gristmill says it
    done = subprocess.run([sys.executable, *words, "--help"], cwd=ROOT, env=here, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def target(command: str) -> tuple[str, ...] | None:
    """What a command runs, as arguments for Python; None for make and python -c."""
    words = shlex.split(command, comments=True)
    while words and "=" in words[0]:
        words.pop(0)
    if words[0] == "make":
        rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(rules), command
        return None
    if words[0] in ("gristmill", "./gristmill"):
        return ("-m", "pipelines.recipe", words[1])
    if "-m" in words:
        return ("-m", words[words.index("-m") + 1])
    scripts = [word for word in words if word.endswith(".py")]
    return (scripts[0],) if scripts else None


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    for command in commands(page):
        runs = target(command)
        if runs is None or runs[-1] in ("pytest", "venv", "http.server", "pip"):
            continue
        known = help_of(*runs)
        after = command.split(runs[-1], 1)[1]
        for flag in re.findall(r"(?<=\s)--[a-z][a-z-]*", after):
            assert flag in known, f"{page.name}: {command}: no {flag}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_ends_with_an_example_that_parses(script):
    text = help_of(f"pipelines/{script.name}")
    before, _, rest = text.partition("example")
    example, _, options = rest.partition("\n\n")
    _, name, after = example.replace("\\\n", " ").partition(f"pipelines/{script.name}")
    assert name
    for flag in re.findall(r"(?<=\s)--[a-z][a-z-]*", after):
        assert flag in before + options, f"{script.name}: its example uses {flag}"


def test_every_job_is_executable():
    assert [script.name for script in SCRIPTS if not script.stat().st_mode & 0o111] == []


def test_every_rate_that_is_called_measured_stands_in_the_benchmarks():
    text = " ".join((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").split())
    rates = read_tables().rates
    found = [*rates.assumed.values(), *(rate for step in rates.steps.values() for rate in step)]
    measured = [rate for rate in found if rate.measured not in (NEVER, BY_DESIGN)]
    assert len(measured) > 20
    for rate in measured:
        assert rate.measured in text, (
            f"pipelines/costs/rates.yaml quotes what is not in docs/benchmarks.md: {rate.measured}"
        )
        numbers = [float(word.replace(",", "")) for word in re.findall(r"\d[\d,]*(?:\.\d+)?", rate.measured)]
        known = {number * unit for number in numbers for unit in (1, 1e6 if " M " in rate.measured else 1)}
        assert rate.value in known, f"{rate.value:g} is not in the line it is said to be from: {rate.measured}"
