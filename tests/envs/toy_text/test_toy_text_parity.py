"""The deterministic variants, played side by side with Gymnasium's, time limits included."""

import gymnasium
import pytest

from kiloworlds.core.registry import make_environment
from kiloworlds.testing.parity import parity


def _on_grid(slow, state):
    columns = getattr(slow, "ncol", 12)
    slow.s = int(state.row) * columns + int(state.column)


def _in_taxi(slow, state):
    parts = (state.row, state.column, state.passenger, state.destination)
    slow.s = slow.encode(*(int(part) for part in parts))


@pytest.mark.parametrize(
    ("id", "arguments", "set_state", "steps"),
    [
        ("FrozenLake-v1", {"is_slippery": False}, _on_grid, 100),
        ("FrozenLake8x8-v1", {"is_slippery": False}, _on_grid, 200),
        ("CliffWalking-v1", {}, _on_grid, 300),
        ("Taxi-v4", {}, _in_taxi, 200),
    ],
)
def test_episodes_equal_gymnasiums(id, arguments, set_state, steps):
    slow = gymnasium.make(id, **arguments)
    fast = make_environment(id, **arguments)
    report = parity(fast, slow, set_state=set_state, steps=steps, episodes=5)
    assert report.steps >= 5
    assert report.episodes == 5
