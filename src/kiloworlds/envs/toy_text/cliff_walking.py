"""CliffWalking: walk along a cliff to the goal; a fall costs dearly and starts over."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.spaces import Discrete
from kiloworlds.envs.toy_text.grid import GridPicture, slip, text_grid

_ROWS, _COLUMNS = 4, 12
_UP, _RIGHT, _DOWN, _LEFT = range(4)


class CliffWalkingState(NamedTuple):
    """Where the walker stands, row 0 at the top."""

    row: Int[Array, ""]
    column: Int[Array, ""]


class CliffWalking(Environment):
    """Gymnasium's CliffWalking-v1 and CliffWalkingSlippery-v1, state for state.

    Start and goal are the ends of the bottom row of a 4 by 12 grid, the cliff lies between them.

    Observation: `row * 12 + column`, int32.
    Action: 0 up, 1 right, 2 down, 3 left; where slippery, 2/3 of the moves go sideways.
    Reward: -1 for every step, -100 for a step off the cliff, which leads back to the start.
    Episode end: terminates at the goal.
    Info: `prob`, the probability of the transition taken.

    Reference: R. Sutton, A. Barto, "Reinforcement Learning: An Introduction" (2018), example 6.6.
    """

    is_slippery: bool = eqx.field(static=True, default=False)

    cheap_reset: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = ("up", "right", "down", "left")

    def reset(self, key: Key[Array, ""]) -> tuple[CliffWalkingState, Int[Array, ""]]:
        state = CliffWalkingState(jnp.int32(_ROWS - 1), jnp.int32(0))
        return state, _observe(state)

    def step(
        self, key: Key[Array, ""], state: CliffWalkingState, action: Int[Array, ""]
    ) -> tuple[CliffWalkingState, Step]:
        direction, probability = action, jnp.ones(())
        if self.is_slippery:
            direction, probability = slip(key, action, 1.0 / 3.0)
        down = (direction == _DOWN).astype(jnp.int32) - (direction == _UP)
        right = (direction == _RIGHT).astype(jnp.int32) - (direction == _LEFT)
        row = jnp.clip(state.row + down, 0, _ROWS - 1)
        column = jnp.clip(state.column + right, 0, _COLUMNS - 1)
        at_bottom = row == _ROWS - 1
        fell = at_bottom & (column > 0) & (column < _COLUMNS - 1)
        terminated = at_bottom & (column == _COLUMNS - 1)
        # The start is on the cliff's own row: falling only sets the column back.
        state = CliffWalkingState(row, jnp.where(fell, 0, column))
        return state, Step(
            _observe(state),
            jnp.where(fell, -100.0, -1.0),
            terminated,
            jnp.zeros_like(terminated),
            {"prob": probability},
        )

    def reset_info(self, state: CliffWalkingState) -> dict[str, Any]:
        return {"prob": jnp.ones(())}

    @property
    def observation_space(self) -> Discrete:
        return Discrete(_ROWS * _COLUMNS)

    @property
    def action_space(self) -> Discrete:
        return Discrete(4)

    def render(self, state: CliffWalkingState) -> np.ndarray:
        """The grid, 64 pixels a cell: start, cliff, goal and walker."""
        picture = GridPicture(_ROWS, _COLUMNS, background="#a3b18a")
        for (row, column), letter in np.ndenumerate(np.array([list(line) for line in _letters()])):
            picture.cell(row, column, {"C": "#44403c", "G": "#fde68a"}.get(letter, "#dad7cd"))
            if letter == "C":
                low, high = picture.point(row + 0.98, column), picture.point(row + 0.98, column + 1)
                edge = picture.point(row + 0.55, column + 0.5)
                picture.canvas.polygon([low, edge, high], "#292524")
            elif letter in "SG":
                picture.text(row, column, letter, "#57534e")
        picture.agent(int(state.row), int(state.column))
        return picture.canvas.pixels()

    def describe(self, state: CliffWalkingState) -> str:
        """The grid (S start, C cliff, G goal), the walker's cell in brackets."""
        return text_grid(_letters(), int(state.row), int(state.column))


def _observe(state: CliffWalkingState) -> Int[Array, ""]:
    return state.row * _COLUMNS + state.column


def _letters() -> list[str]:
    return ["." * _COLUMNS] * (_ROWS - 1) + ["S" + "C" * (_COLUMNS - 2) + "G"]
