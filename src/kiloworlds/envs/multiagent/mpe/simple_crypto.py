"""Crypto: Alice tells Bob a secret over a line on which Eve listens."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from kiloworlds.core.checks import require_flag
from kiloworlds.core.environment import AgentKind
from kiloworlds.core.random import random_index
from kiloworlds.envs.multiagent.mpe.controls import Controls
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.groups import Group
from kiloworlds.envs.multiagent.mpe.observing import observation_box, observations
from kiloworlds.envs.multiagent.mpe.picture import BLUE, ORANGE, SLATE, TEAL, draw_lines
from kiloworlds.envs.multiagent.mpe.world import Message, ParticleState, silence

_SYMBOLS = 4
_SECRETS = 2  # only the first two symbols are ever the secret or the key
_NAMES = ("eve", "bob", "alice")
_EVE, _BOB, _ALICE = range(3)


class SimpleCrypto(ParticleEnvironment):
    """mpe2's simple_crypto_v3, state for state: one bit is told, with a key that Alice and Bob share.

    Observation, float32: Alice sees the secret (4, one of them 1) and the key (4), Bob the key (4) and
    what Alice said (4), Eve what Alice said (4).
    Action: all say a symbol, 0 to 3; continuous: a number for each, between 0 and 1.
    Reward: with the error of a listener, the sum of squares of what it said minus the secret (nothing
    where it said only zeros): Alice and Bob get Eve's error minus Bob's, Eve minus her own.
    Episode end: never terminates.

    Nobody has a position here: in mpe2 agents and landmarks stand somewhere, which nobody observes.
    The secret and the key are the two `goals` of the state.

    Reference: R. Lowe et al., "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments" (2017); after M. Abadi, D. Andersen, "Learning to Protect Communications with
    Adversarial Neural Cryptography" (2016).
    """

    continuous_actions: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        require_flag("continuous_actions", self.continuous_actions)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        sizes = zip(_NAMES, (_SYMBOLS, 2 * _SYMBOLS, 2 * _SYMBOLS), strict=True)
        return tuple(
            AgentKind.numbered(name, 1, observation_box(size), self._controls.space)
            for name, size in sizes
        )

    @property
    def _controls(self) -> Controls:
        return Controls(self.continuous_actions, moves=False, symbols=_SYMBOLS)

    def _start(self, key: Key[Array, ""]) -> ParticleState:
        goals = tuple(jnp.unstack(random_index(key, _SECRETS, (2,))))
        return ParticleState(messages=(silence(_SYMBOLS),) * 3, goals=goals)

    def _act(self, state: ParticleState, action: PyTree) -> ParticleState:
        messages = tuple(self._controls.message(action[name][0]) for name in _NAMES)
        return state._replace(messages=messages)

    def _rewards(self, state: ParticleState) -> Group:
        secret = _symbol(state.goals[0])
        eve, bob = (_error(state.messages[listener], secret) for listener in (_EVE, _BOB))
        return -eve, eve - bob, eve - bob

    def observe(self, state: ParticleState) -> dict[str, Any]:
        """The observation of a state."""
        secret, key = (_symbol(goal) for goal in state.goals)
        said = list(state.messages[_ALICE])
        seen = {"eve": said, "bob": [*key, *said], "alice": [*secret, *key]}
        return {name: observations([row]) for name, row in seen.items()}

    def render(self, state: ParticleState) -> np.ndarray:
        """The secret, the key and what everyone says, a row of symbols each."""
        secret, key = (_symbol(goal) for goal in state.goals)
        return draw_lines(
            [
                ("secret", secret, SLATE),
                ("key", key, SLATE),
                ("alice says", state.messages[_ALICE], TEAL),
                ("bob says", state.messages[_BOB], BLUE),
                ("eve says", state.messages[_EVE], ORANGE),
            ]
        )


def _symbol(goal: Int[Array, ""]) -> Message:
    return tuple((goal == index).astype(jnp.float32) for index in range(_SYMBOLS))


def _error(message: Message, secret: Message) -> Float[Array, ""]:
    squares = [(said - meant) ** 2 for said, meant in zip(message, secret, strict=True)]
    spoke = jnp.stack([said != 0 for said in message]).any()
    return jnp.where(spoke, sum(squares[1:], squares[0]), 0.0)
