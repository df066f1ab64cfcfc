"""What holds for every command: a list flag given twice extends, and --help costs no torch, transformers or Ray."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.recipe.jobs import MODULES, NAMES

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "ray", "open_clip", "torchvision", "datasets")
COMMANDS = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
    for room in ("corpus", "cleaners", "renderers", "synth_ocr", "pipelines", "trainer", "benchmarks")
    for path in (ROOT / room).rglob("*.py")
    if '\nif __name__ == "__main__":\n    ' in (text := path.read_text()) and "pars" in text and "main()" in text
)


class Parsed(Exception):
    """Carries a benchmark's parser out of its main."""


def parser_of(command: str, monkeypatch) -> argparse.ArgumentParser:
    """A command's parser, by the one name under which the planner and the schema find it too."""
    if not command.startswith("benchmarks."):
        return importlib.import_module(command).make_parser()

    def carry(parser, *_):
        raise Parsed(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", carry)
    with pytest.raises(Parsed) as carried:
        importlib.import_module(command).main()
    return carried.value.args[0]


def test_every_command_of_the_checkout_names_its_parser_alike():
    modules = [importlib.import_module(MODULES.get(name, f"pipelines.{name}")) for name in NAMES]
    modules = [
        importlib.import_module(f"{each.__name__}.__main__") if hasattr(each, "__path__") else each for each in modules
    ]
    for module in modules:
        assert isinstance(module.make_parser(), argparse.ArgumentParser), module.__name__
        assert not hasattr(module, "_parser"), module.__name__


def test_the_commands_are_found():
    assert len(COMMANDS) > 40
    assert {"pipelines.dedup", "pipelines.train", "trainer.__main__", "trainer.generate", "trainer.evaluate",
            "trainer.export", "synth_ocr.fonts", "pipelines.retune"} < set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_list_flag_given_twice_extends(command, monkeypatch):
    parser = parser_of(command, monkeypatch)
    monkeypatch.undo()
    for flag in [action for action in parser._actions if action.option_strings]:
        if flag.nargs not in ("+", "*") and not isinstance(flag, argparse._AppendAction):
            continue
        one = str(next(iter(flag.choices))) if flag.choices else "1"
        for action in parser._actions:
            action.required = False
        for group in parser._mutually_exclusive_groups:
            group.required = False
        place = [one] * sum(not action.option_strings for action in parser._actions)
        given = parser.parse_args([*place, flag.option_strings[0], one, flag.option_strings[0], one])
        assert len(getattr(given, flag.dest)) == 2, f"{command} {flag.option_strings[0]}"


def test_help_costs_no_torch():
    """All commands of users in one process of their own, in which nothing heavy may appear."""
    commands = [c for c in COMMANDS if not c.startswith("benchmarks.")]
    code = f"""
import contextlib, io, json, runpy, sys
found = {{}}
for command in {commands!r}:
    sys.argv = [command, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        runpy.run_module(command, run_name="__main__")
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    if heavy or "usage" not in out.getvalue():
        found[command] = heavy or out.getvalue()
        for name in [n for n in sys.modules if n.partition(".")[0] in {HEAVY!r}]:
            del sys.modules[name]
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}
