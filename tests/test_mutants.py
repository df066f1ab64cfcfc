"""The list of deliberate bugs is kept with the code: every place stands there once, every test exists."""

from benchmarks.mutants import load_mutants
from tests.conftest import ROOT


def test_every_bug_of_the_list_can_be_planted_and_names_tests():
    mutants = load_mutants()
    assert len(mutants) >= 60
    for mutant in mutants:
        assert mutant.becomes != mutant.was
        for name in mutant.tests.split():
            assert (ROOT / "tests" / f"{name}.py").is_file(), f"{mutant.file}: no tests/{name}.py"
