"""Games of Hanabi whose deck is known: for tests that follow them move by move."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from kiloworlds.envs.multiagent.hanabi import cards, game
from kiloworlds.envs.multiagent.hanabi.environment import Hanabi
from kiloworlds.envs.multiagent.hanabi.text import LETTERS


def whole_deck(rules):
    """All cards as (colour, rank) pairs, in order."""
    return [
        (color, rank)
        for color in range(rules.num_colors)
        for rank, copies in enumerate(rules.copies)
        for _ in range(copies)
    ]


def shuffled_deck(rules, rng):
    deck = whole_deck(rules)
    return [deck[i] for i in rng.permutation(len(deck))]


def deck_of(rules, first):
    """A deck that begins with the cards named, such as "R1 Y3", and goes on with all others in order."""
    deck = whole_deck(rules)
    named = [(LETTERS.index(name[0]), int(name[1]) - 1) for name in first.split()]
    for card in named:
        deck.remove(card)
    return named + deck


def bit_of(rules, card):
    return np.uint32(1 << rules.kind(*card))


def start_with(rules, kinds):
    """The start of a game whose deck holds these kinds (bits `[D]`), those of the first hands first."""
    deck = tuple(jnp.uint32(layer) for layer in rules.full_deck)
    dealt = kinds[: rules.num_dealt]
    deck = jax.lax.fori_loop(0, rules.num_dealt, lambda i, pile: cards.take(pile, dealt[i]), deck)
    return game.start(rules, deck, dealt.reshape(rules.num_agents, rules.hand_size))


_start = eqx.filter_jit(lambda env, kinds: start_with(env.rules, kinds))


_legal = eqx.filter_jit(lambda env, state: env.available_actions(state))


@eqx.filter_jit
def _step(env, state, actions, drawn):
    """Without the observation, which takes as long to compile as all the rest."""
    state, step = env.step_with(state, actions, drawn)
    return state, step._replace(observation=None)


class Table:
    """A game with a known deck; moves are given by their names."""

    def __init__(self, first: str, **settings):
        self.env = Hanabi(**settings)
        self.rules = self.env.rules
        self.deck = deck_of(self.rules, first)
        kinds = np.array([bit_of(self.rules, card) for card in self.deck])
        self.state = _start(self.env, kinds)
        self.to_draw = self.deck[self.rules.num_dealt :]

    def do(self, *moves):
        """Makes moves one after the other; returns the last step."""
        for move in moves:
            number = self.env.action_names.index(move)
            actions = np.full(self.rules.num_agents, self.rules.no_op, np.int32)
            actions[int(self.state.turn)] = number
            drawn = bit_of(self.rules, self.to_draw[0]) if self.to_draw else np.uint32(0)
            before = self.state.deck
            self.state, step = _step(self.env, self.state, actions, drawn)
            was_drawn = any(bool(a != b) for a, b in zip(before, self.state.deck, strict=True))
            self.to_draw = self.to_draw[1:] if was_drawn else self.to_draw
        return step

    def masks(self):
        return np.asarray(_legal(self.env, self.state))

    def legal(self):
        """The names of the legal moves of the agent whose turn it is."""
        mask = self.masks()[int(self.state.turn)]
        return [name for name, allowed in zip(self.env.action_names, mask, strict=True) if allowed]

    def lines(self, agent):
        """What `describe` says of an agent's cards, and what is known of each."""
        lines = self.env.describe(self.state).splitlines()
        first = lines.index(f"agent_{agent}") + 1
        return [line.strip() for line in lines[first : first + self.rules.hand_size]]
