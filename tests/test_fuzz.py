"""A few operations that a fuzzer makes up; `make fuzz` sends many."""

from __future__ import annotations

from tests import processes
from tests.fuzz import SCHEMA, fuzz


def test_whatever_a_fuzzer_makes_up_is_no_fault() -> None:
    with processes.place() as folder:
        fuzzed = fuzz(folder, "--seed=1", "--max-examples=1")

    assert SCHEMA.query_type is not None
    assert SCHEMA.mutation_type is not None
    assert fuzzed.passed, fuzzed.report
    # One for each, except logout and awaitInteraction.
    roots = {**SCHEMA.query_type.fields, **SCHEMA.mutation_type.fields}
    assert fuzzed.cases >= len(roots) - 2
    assert "fault" not in fuzzed.log
