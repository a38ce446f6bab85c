"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Test processes run side by side, and torch jobs of several threads each slow each other down several times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the passed tests of faults did (`record_property("survived", [count, what])`), counted."""
    passed = terminalreporter.stats.get("passed", [])
    survived = [value for report in passed for name, value in report.user_properties if name == "survived"]
    if survived:
        terminalreporter.section("faults injected and survived")
        for count, what in survived:
            terminalreporter.write_line(f"{count:4}  {what}")
        terminalreporter.write_line(
            f"{sum(count for count, _ in survived):4}  in all; every result the same bytes as without"
        )


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a tiny random Stable Diffusion pipeline; read only."""
    from helpers.tiny import tiny_pipeline

    return tiny_pipeline(tmp_path_factory.mktemp("backbone"))
