"""Tests of worlds that are still being finished, and are known to fail."""

import pytest

UNFINISHED = (
    "test_overcooked_layouts.py::test_wrong_texts[WPWW",
    "test_overcooked.py::test_cooks_serve_soups[forced_coord]",
    "test_overcooked_v2.py::test_random_reset",
    "test_navigation.py::TestFinished::test_it_drives_on_and_can_crash",
    "test_navigation.py::TestSettings::test_parameters_may_differ_between_environments",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if any(name in item.nodeid for name in UNFINISHED):
            item.add_marker(pytest.mark.xfail(reason="still being finished", strict=False))
        if "test_battle" in item.nodeid:
            item.add_marker(pytest.mark.slow)
