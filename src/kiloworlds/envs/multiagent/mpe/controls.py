"""What agents of the particle world can do: push themselves, speak, or both."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.multiagent.mpe.groups import Group, Many, each
from kiloworlds.envs.multiagent.mpe.world import Message, Vector

_MOVES = 5  # none, left, right, down, up


@dataclass(frozen=True)
class Controls:
    """The actions of one agent.

    Discrete: 0 nothing, 1 left, 2 right, 3 down, 4 up; with several symbols to say, 5 times the
    symbol is added to that (an agent that cannot move just says the symbol).
    Continuous: the same five as strengths between 0 and 1, then one number for each symbol. Numbers
    outside count as the nearest one.

    Attributes:
        continuous: which of the two.
        moves: whether it pushes itself.
        symbols: how many there are to say; 0 for an agent that does not speak.
    """

    continuous: bool
    moves: bool = True
    symbols: int = 0

    @property
    def space(self) -> Box | Discrete:
        """The space of one agent's actions."""
        moves = _MOVES if self.moves else 0
        if self.continuous:
            return Box(0.0, 1.0, (moves + self.symbols,))
        return Discrete(max(moves, 1) * max(self.symbols, 1))

    def pushes(self, actions: Num[Array, "K ..."], accelerations: Group) -> Group:
        """The forces with which agents push themselves."""
        each_one = Many(actions) if isinstance(accelerations, Many) else tuple(jnp.unstack(actions))
        return each(self.push, each_one, accelerations)

    def push(self, action: Num[Array, "..."], acceleration: Float[ArrayLike, ""]) -> Vector:
        """The force with which an action pushes its agent."""
        if self.continuous:
            left, right, down, up = (
                jnp.clip(action[..., index], 0.0, 1.0) for index in range(1, 5)
            )
            return Vector(right - left, up - down) * acceleration
        move = action % _MOVES if self.symbols else action
        x = jnp.where(move == 2, 1.0, jnp.where(move == 1, -1.0, 0.0))
        y = jnp.where(move == 4, 1.0, jnp.where(move == 3, -1.0, 0.0))
        return Vector(x, y) * acceleration

    def message(self, action: Num[Array, "..."]) -> Message:
        """What an action says."""
        first = _MOVES if self.moves else 0
        if self.continuous:
            return tuple(
                jnp.clip(action[..., first + index], 0.0, 1.0) for index in range(self.symbols)
            )
        symbol = action // _MOVES if self.moves else action
        return tuple((symbol == index).astype(jnp.float32) for index in range(self.symbols))
