"""Catch: move a paddle along the bottom of the board to catch a falling ball."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import random_index
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.toy_text.grid import GridPicture


class CatchState(NamedTuple):
    """The ball's row (0 at the top) and column, and the paddle's column."""

    ball_row: Int[Array, ""]
    ball_column: Int[Array, ""]
    paddle: Int[Array, ""]


class Catch(Environment):
    """bsuite's Catch, state for state.

    The ball starts at the top of a random column and falls one row a step; the paddle starts in the
    middle of the bottom row.

    Observation: the board as float32 `[rows, columns]`, 1 at the ball and at the paddle, else 0.
    Action: 0 left, 1 stay, 2 right.
    Reward: at the end 1 for a ball caught and -1 for one missed, before that 0.
    Episode end: terminates when the ball reaches the bottom row, after `rows` - 1 steps.

    Reference: I. Osband et al., "Behaviour Suite for Reinforcement Learning" (2020).
    """

    rows: int = eqx.field(static=True, default=10)
    columns: int = eqx.field(static=True, default=5)

    cheap_reset: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = ("left", "stay", "right")

    def __check_init__(self):
        if self.rows < 2 or self.columns < 1:
            raise InvalidValueError(
                f"Catch(rows={self.rows}, columns={self.columns}): the board needs at least 2 rows "
                "and 1 column."
            )

    def reset(self, key: Key[Array, ""]) -> tuple[CatchState, Float[Array, "rows columns"]]:
        ball_column = random_index(key, self.columns)
        ball_row, paddle = jnp.int32(0), jnp.int32(self.columns // 2)
        state = CatchState(ball_row, ball_column, paddle)
        return state, self._observe(state)

    def step(
        self, key: Key[Array, ""], state: CatchState, action: Int[Array, ""]
    ) -> tuple[CatchState, Step]:
        paddle = jnp.clip(state.paddle + action - 1, 0, self.columns - 1)
        ball_row = jnp.minimum(state.ball_row + 1, self.rows - 1)
        state = CatchState(ball_row, state.ball_column, paddle)
        terminated = ball_row == self.rows - 1
        outcome = jnp.where(paddle == state.ball_column, 1.0, -1.0)
        reward = jnp.where(terminated, outcome, 0.0)
        return state, Step(self._observe(state), reward, terminated, jnp.zeros_like(terminated), {})

    def _observe(self, state: CatchState) -> Float[Array, "rows columns"]:
        cells = jnp.arange(self.rows * self.columns).reshape(self.rows, self.columns)
        ball = state.ball_row * self.columns + state.ball_column
        paddle = (self.rows - 1) * self.columns + state.paddle
        return ((cells == ball) | (cells == paddle)).astype(jnp.float32)

    @property
    def observation_space(self) -> Box:
        return Box(0.0, 1.0, (self.rows, self.columns))

    @property
    def action_space(self) -> Discrete:
        return Discrete(3)

    def render(self, state: CatchState) -> np.ndarray:
        """The board, 64 pixels a cell, with ball and paddle."""
        picture = GridPicture(self.rows, self.columns, background="#cbd5e1")
        for row, column in np.ndindex(self.rows, self.columns):
            picture.cell(row, column, "#f8fafc")
        paddle, bottom = int(state.paddle), self.rows - 1
        picture.canvas.rectangle(
            picture.point(bottom + 0.9, paddle + 0.08),
            picture.point(bottom + 0.65, paddle + 0.92),
            "#1e293b",
        )
        picture.disc(int(state.ball_row), int(state.ball_column), 0.3, "#d97706")
        return picture.canvas.pixels()

    def describe(self, state: CatchState) -> str:
        """The board: o the ball, = the paddle, @ the ball on the paddle."""
        board = [["."] * self.columns for _ in range(self.rows)]
        board[-1][int(state.paddle)] = "="
        row, column = int(state.ball_row), int(state.ball_column)
        board[row][column] = "@" if board[row][column] == "=" else "o"
        return "\n".join(" ".join(line) for line in board)
