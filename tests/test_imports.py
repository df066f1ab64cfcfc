"""The arrows of the house: pipelines -> {cleaners, renderers, synth_ocr, trainer} -> corpus; Ray in one module."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {"cleaners", "renderers", "synth_ocr", "trainer"}
ALLOWED = {
    "corpus": {"corpus"},
    **{leaf: {leaf, "corpus"} for leaf in LEAVES},
    "pipelines": {"pipelines", "corpus", *LEAVES},
    "benchmarks": {"benchmarks", "pipelines", "corpus", *LEAVES},
}


def imported(file: Path) -> set[str]:
    """The dotted names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no modules in {package}"
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_arrows_point_down(package):
    for file in files(package):
        ours = {name.split(".")[0] for name in imported(file)} & ALLOWED.keys()
        assert ours <= ALLOWED[package], f"{file.relative_to(ROOT)} imports {sorted(ours - ALLOWED[package])}"


def test_no_two_files_import_each_other_in_a_circle():
    modules = {module_of(file): file for package in ALLOWED for file in files(package)}
    arrows = {name: imported(file) & modules.keys() - {name} for name, file in modules.items()}
    try:
        list(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_file_in_pipelines_is_a_command():
    """Its machinery lives in the folders beside: engine, work, fetch, proof."""
    for file in sorted((ROOT / "pipelines").glob("*.py")):
        if file.name == "__init__.py":
            continue
        text = file.read_text(encoding="utf-8")
        assert (
            text.startswith("#!/usr/bin/env python\n") and "def main(" in text and '__name__ == "__main__"' in text
        ), file
        assert file.stat().st_mode & 0o111, f"{file} is not executable"


def test_one_module_imports_ray():
    users = {
        str(file.relative_to(ROOT))
        for package in ALLOWED
        for file in files(package)
        if any(name.split(".")[0] == "ray" for name in imported(file))
    }
    assert users <= {"pipelines/engine/cluster.py"}


def test_init_files_are_empty():
    inits = [file for package in ALLOWED for file in files(package) if file.name == "__init__.py"]
    assert [file for file in inits if file.read_text()] == []


def test_no_script_shadows_a_module():
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    for file in (ROOT / "pipelines").glob("*.py"):
        assert file.stem not in sys.stdlib_module_names and file.stem not in ours, file


@pytest.mark.parametrize("package", sorted(ALLOWED.keys() - {"benchmarks"}))
def test_packages_are_those_of_this_checkout(package):
    assert Path(find_spec(package).origin).parent == ROOT / package


@pytest.mark.parametrize(
    "modules, absent",
    [
        ("corpus.records corpus.shards corpus.ledger corpus.folder corpus.catalog corpus.tokens", "ray torch"),
        ("cleaners.rules cleaners.clip", "ray torch"),
        ("pipelines.clean_laion pipelines.engine.job", "ray torch cv2 pandas pydantic pymupdf pyppeteer"),
        ("trainer.model", "ray"),
    ],
)
def test_heavy_libraries_load_only_when_asked_for(modules, absent):
    code = f"import sys, {', '.join(modules.split())}; print(*(set(sys.modules) & set({absent.split()!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_ray_takes_from_a_command_holds_no_cache():
    """Ray sends a script's own functions by value, but a cached one by name, and its workers do not find that."""
    runs = re.compile(r"\bjob\.run\(|first_pass\(")
    jobs = [file for file in (ROOT / "pipelines").glob("*.py") if runs.search(file.read_text())]
    cached = [
        f"{file.stem}.{node.name}"
        for file in jobs
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and any("cache" in ast.unparse(each) for each in node.decorator_list)
    ]
    assert len(jobs) > 12 and not cached


THREADED = {"group_by", "iter_batches", "read_row_group", "read_row_groups"}  # of pyarrow: they take `use_threads`


def test_arrow_never_works_in_a_thread_of_its_own():
    """Its pool drops what Python owns when it gets to it: at the interpreter's end that ends the process."""
    for package in ("corpus", "cleaners", "renderers", "synth_ocr", "trainer", "pipelines"):
        for file in files(package):
            for call in calls(file):
                told = {word.arg: ast.unparse(word.value) for word in call.keywords}
                threaded = call.func.attr in THREADED or "join_type" in told
                where = f"{file.relative_to(ROOT)}:{call.lineno}"
                assert not threaded or told.get("use_threads") == "False", f"{where} needs use_threads=False"
                assert ast.unparse(call.func) != "pq.read_table", f"{where}: pq.read_table has threads of its own"


def calls(file: Path) -> list[ast.Call]:
    """The calls of methods and of modules' functions."""
    found = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return [node for node in found if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
