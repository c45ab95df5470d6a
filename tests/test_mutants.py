"""What breaks lines by machine: it breaks what it should, and sees what the tests do not."""

from __future__ import annotations

from pathlib import Path

from tests.mutants import ALSO_TESTED, ROOT, concerned, mutants, survives

SOURCE = '''\
LIMIT = 5


def allowed(age: int, known: bool = False) -> bool:
    """Whether somebody of an age may enter."""
    note(age)
    return age >= 18
'''


def test_single_lines_are_broken_in_functions_only() -> None:
    broken = [
        (mutant.line, mutant.source.splitlines()[mutant.line - 1]) for mutant in mutants(SOURCE)
    ]
    assert broken == [
        (4, "def allowed(age: int, known: bool = True) -> bool:"),
        (6, "    pass"),
        (7, "    return (age > 18)"),
        (7, "    return age >= 19"),
    ]


def test_steps_and_conditions_of_a_statement_are_left_out() -> None:
    source = "def f():\n    return select(a).where(b, c).limit(g)\n"
    assert [mutant.source.splitlines()[1].strip() for mutant in mutants(source)] == [
        "return (select(a).where(b, c))",
        "return (select(a)).limit(g)",
        "return select(a).where(c).limit(g)",
        "return select(a).where(b).limit(g)",
    ]


def test_what_no_test_notices_survives_and_the_module_is_mended(tmp_path: Path) -> None:
    source = "def allowed(age):\n    return age >= 18\n"
    (tmp_path / "door.py").write_text(source, "utf-8")
    test = "import door\n\n\ndef test_door():\n    assert door.allowed(18)\n"
    (tmp_path / "test_door.py").write_text(test, "utf-8")
    lived = {
        mutant.source.splitlines()[1].strip(): survives(
            tmp_path, "door.py", mutant, ["test_door.py"]
        )
        for mutant in mutants(source)
    }
    assert lived == {"return (age > 18)": False, "return age >= 19": False}
    (tmp_path / "test_door.py").write_text(test.replace("allowed(18)", "allowed(19)"), "utf-8")
    assert survives(tmp_path, "door.py", next(iter(mutants(source))), ["test_door.py"])
    assert (tmp_path / "door.py").read_text("utf-8") == source


def test_each_module_that_is_broken_has_tests() -> None:
    for path, names in ALSO_TESTED.items():
        assert (ROOT / path).exists()
        assert len(concerned(path)) >= len(names.split())
