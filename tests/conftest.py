"""Fixtures shared by all tests."""

import os
from collections import Counter
from pathlib import Path

import pytest

# Test processes run side by side, and torch jobs of several threads each slow each other down several times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Count what a test injects (`pytest.mark.injects(what)`) in the summary."""
    for mark in item.iter_markers("injects"):
        item.user_properties.append(("survived", [1, mark.args[0]]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the passed tests of faults did (`injects`, or `record_property("survived", [count, what])`), counted."""
    survived: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "survived":
                survived[value[1]] += value[0]
    if survived:
        terminalreporter.section("faults injected and survived")
        for what, count in survived.items():
            terminalreporter.write_line(f"{count:4}  {what}")
        terminalreporter.write_line(
            f"{survived.total():4}  in all; nothing torn or lost, results the same bytes as without"
        )


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny random Stable Diffusion pipeline; read only."""
    from helpers.tiny import tiny_pipeline

    return tiny_pipeline(tmp_path_factory.mktemp("backbone"))
