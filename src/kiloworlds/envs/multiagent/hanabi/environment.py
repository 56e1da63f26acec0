"""Hanabi: a game of cards for two to five who see each other's hands but not their own."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from kiloworlds.core.checks import require_flag, require_number
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.multiagent.hanabi import cards, game, observation
from kiloworlds.envs.multiagent.hanabi.game import HanabiState, Rules
from kiloworlds.envs.multiagent.hanabi.picture import draw_table
from kiloworlds.envs.multiagent.hanabi.text import COLORS, action_names, describe_game

_MOST_RANKS = 5
_MOST_COPIES = 8
_MOST_TOKENS = 100
_MOST_HAND = 31  # a hint has a bit for each card


class Hanabi(MultiAgentEnvironment):
    """Hanabi as in the Hanabi Learning Environment, with the interface of the jaxmarl package.

    Agents in turn play a card, discard one, or spend an information token to tell another all its cards
    of one colour or rank. Cards of each colour must be played in the order of their ranks.

    Observation of each agent, float32 between 0 and 1, seen from its seat (itself first, then who moves
    after it), with A agents, C colours, R ranks, H cards of a hand and D in the deck, kinds ordered by
    colour, then by rank:

    - (A - 1) H C R: the cards of the others, one-hot, from the oldest to the newest
    - A: who lacks a card
    - D - A H: the cards left to draw, a thermometer (as many ones)
    - C R: the top of each firework, one-hot
    - `max_info_tokens` and `max_life_tokens`: thermometers
    - D: the cards discarded, for each kind a thermometer of its copies
    - 2 A + 4 + C + R + 2 H + C R + 2: the last move: who (one-hot), play, discard, hint of colour or of
      rank, to whom, which colour, which rank, the cards it touched, the place of the card moved, its
      kind, whether a firework grew, whether that brought a token; zeros before the first move
    - A H (C R + C + R): for each card of each agent how probable each kind is, the colour told, the rank
      told. Probable is what no hint excludes, each kind by the number of its copies that are neither
      played nor discarded. With `beliefs=False` ones instead for all that no hint excludes.

    Action: `0` to `H - 1` discard a card, the next H play one, then (A - 1) C tell the next agent each
    colour, the one after it each colour, and so on, then (A - 1) R each rank, and the last does nothing.
    All agents act in every step; the one whose turn it is has its legal moves and the others only the
    last (`available_actions`). A move that is not legal passes the turn.
    Reward, the same for all: how much the score changed. The score is the number of cards in the
    fireworks, and 0 once all lives are lost, which takes back what was won. With
    `keeps_score=True` it stays what it was.
    Episode end: terminates when all lives are lost, all fireworks are complete, or all agents have moved
    once after the last card was drawn.
    Info: `score`; `won`: whether all fireworks are complete; `shaped_reward` `[A]`: gives back what
    losing all lives took, for training that is not to learn first of all to play nothing.
    Global state, one for each agent: its observation, then the cards in its own hand, one-hot.

    Differences: both originals fix the deck at the start; here a card is drawn when it is needed. With
    `beliefs=True`, the default, observations equal those of the jaxmarl package, with `beliefs=False`
    those of the Learning Environment. On losing all lives both give score 0.

    Args:
        num_agents: 2 to 5.
        num_colors: 1 to 6. num_ranks: 1 to 5.
        hand_size: cards of each agent; None for 5 of two or three agents and 4 of more.
        max_info_tokens, max_life_tokens: as many as there are at the start.
        num_cards_of_rank: how many of each rank there are in each colour; None for three of the lowest,
            one of the highest and two of the others.
        keeps_score: whether the score stays when all lives are lost.
        beliefs: whether agents observe probabilities of cards, or only possibilities.

    Raises:
        InvalidValueError: a number that is not allowed, or a deck that leaves nothing to draw.

    Reference: N. Bard et al., "The Hanabi Challenge: A New Frontier for AI Research" (2020),
    Artificial Intelligence 280; probabilities after H. Hu, J. Foerster, "Simplified Action Decoder for
    Deep Multi-Agent Reinforcement Learning" (2020).
    """

    rules: Rules = eqx.field(static=True)
    keeps_score: bool = eqx.field(static=True)
    beliefs: bool = eqx.field(static=True)

    cheap_reset: ClassVar[bool] = True
    team_reward: ClassVar[bool] = True

    def __init__(
        self,
        num_agents: int = 2,
        num_colors: int = 5,
        num_ranks: int = 5,
        hand_size: int | None = None,
        max_info_tokens: int = 8,
        max_life_tokens: int = 3,
        num_cards_of_rank: Sequence[int] | None = None,
        keeps_score: bool = False,
        beliefs: bool = True,
    ):
        require_number("num_agents", num_agents, 2, 5, whole=True)
        require_number("num_colors", num_colors, 1, len(COLORS), whole=True)
        require_number("num_ranks", num_ranks, 1, _MOST_RANKS, whole=True)
        require_number("max_info_tokens", max_info_tokens, 1, _MOST_TOKENS, whole=True)
        require_number("max_life_tokens", max_life_tokens, 1, _MOST_TOKENS, whole=True)
        require_flag("keeps_score", keeps_score)
        require_flag("beliefs", beliefs)
        copies = _copies(num_ranks, num_cards_of_rank)
        self.rules = Rules(
            num_agents=int(num_agents),
            num_colors=int(num_colors),
            num_ranks=int(num_ranks),
            hand_size=_hand_size(hand_size, num_agents, num_colors * sum(copies)),
            max_info_tokens=int(max_info_tokens),
            max_life_tokens=int(max_life_tokens),
            copies=copies,
        )
        self.keeps_score, self.beliefs = bool(keeps_score), bool(beliefs)

    def reset(self, key: Key[Array, ""]) -> tuple[HanabiState, Float[Array, "A features"]]:
        words = jax.random.bits(key, (self.rules.num_agents, self.rules.hand_size))
        state = game.deal(self.rules, words)
        return state, self.observe(state)

    def step(
        self, key: Key[Array, ""], state: HanabiState, action: Int[Array, " A"]
    ) -> tuple[HanabiState, Step]:
        return self.step_with(state, action, cards.draw(jax.random.bits(key), state.deck))

    def step_with(
        self, state: HanabiState, action: Int[Array, " A"], drawn: UInt32[Array, ""]
    ) -> tuple[HanabiState, Step]:
        """A step in which the card to be drawn is given, as one bit; 0 where the deck is empty."""
        is_mover = jnp.arange(self.rules.num_agents) == state.turn
        move = jnp.where(is_mover, action, 0).sum()
        before = self._score(state)
        state = game.advance(self.rules, state, move, drawn)
        score = self._score(state)
        reward = (score - before).astype(jnp.float32)
        return state, Step(
            self.observe(state),
            jnp.broadcast_to(reward, (self.rules.num_agents,)),
            game.is_over(self.rules, state),
            jnp.zeros((), bool),
            self._info(state),
        )

    def reset_info(self, state: HanabiState) -> dict[str, Any]:
        return self._info(state)

    def observe(self, state: HanabiState) -> Float[Array, "A features"]:
        """What all agents observe."""
        return observation.observations(self.rules, state, self.beliefs)

    def available_actions(self, state: HanabiState) -> Bool[Array, "A actions"]:
        return observation.legal_actions(self.rules, state)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        seen = Box(0.0, 1.0, (observation.observation_size(self.rules),))
        return (
            AgentKind.numbered(
                "agent", self.rules.num_agents, seen, Discrete(self.rules.no_op + 1)
            ),
        )

    @property
    def action_names(self) -> tuple[str, ...]:
        """What each action means."""
        return action_names(self.rules)

    @property
    def global_state_space(self) -> Box:
        size = observation.observation_size(self.rules)
        size += self.rules.hand_size * self.rules.num_kinds
        return Box(0.0, 1.0, (self.rules.num_agents, size))

    def global_state(self, state: HanabiState) -> Float[Array, "A features"]:
        own = observation.own_hands(self.rules, state)
        return jnp.concatenate([self.observe(state), own], axis=1)

    def render(self, state: HanabiState) -> np.ndarray:
        """The table: all hands with what their owners know of them, fireworks, discards and tokens."""
        return draw_table(self.rules, jax.device_get(state), int(self._score(state)))

    def describe(self, state: HanabiState) -> str:
        """The position in words: all hands, and for each card what its owner knows of it."""
        return describe_game(self.rules, jax.device_get(state), int(self._score(state)))

    def _score(self, state: HanabiState) -> Int[Array, ""]:
        points = game.points(state)
        return points if self.keeps_score else jnp.where(state.lives > 0, points, 0)

    def _info(self, state: HanabiState) -> dict[str, Any]:
        score = self._score(state)
        given_back = (game.points(state) - score).astype(jnp.float32)
        return {
            "score": score,
            "won": game.is_won(self.rules, state),
            "shaped_reward": jnp.broadcast_to(given_back, (self.rules.num_agents,)),
        }


def _copies(num_ranks: int, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is None:
        return tuple(
            3 if rank == 0 else 1 if rank == num_ranks - 1 else 2 for rank in range(num_ranks)
        )
    copies = tuple(np.asarray(given).tolist()) if np.ndim(given) == 1 else ()
    if len(copies) != num_ranks:
        raise InvalidValueError(
            f"num_cards_of_rank={given!r} must be {num_ranks} numbers, one for each rank of "
            f"num_ranks={num_ranks}, such as {_copies(num_ranks, None)}."
        )
    for number in copies:
        require_number("num_cards_of_rank", number, 1, _MOST_COPIES, whole=True)
    return copies


def _hand_size(given: int | None, num_agents: int, deck_size: int) -> int:
    if given is None:
        given = 5 if num_agents < 4 else 4
    require_number("hand_size", given, 1, _MOST_HAND, whole=True)
    hand_size = int(given)
    most = (deck_size - 1) // num_agents
    if hand_size > most:
        raise InvalidValueError(
            f"hand_size={hand_size} leaves nothing to draw: {num_agents} agents share a deck of "
            f"{deck_size} cards; the nearest valid value is {most}."
        )
    return hand_size
