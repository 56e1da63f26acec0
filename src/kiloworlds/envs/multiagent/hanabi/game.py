"""The rules of Hanabi: how a game is dealt and what each move does to it.

Letters in shapes: A agents and H cards of a hand.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from kiloworlds.envs.multiagent.hanabi import cards
from kiloworlds.envs.multiagent.hanabi.cards import Pile


@dataclass(frozen=True)
class Rules:
    """The numbers a game is played with.

    Actions are numbered: to discard each card of the hand, to play each, to tell each other agent (next
    to move first) each colour, to tell each of them each rank, and nothing, which is for waiting.

    Attributes:
        num_agents, num_colors, num_ranks, hand_size: of the game.
        max_info_tokens, max_life_tokens: what a game starts with.
        copies: how many cards of each rank there are in each colour.
    """

    num_agents: int
    num_colors: int
    num_ranks: int
    hand_size: int
    max_info_tokens: int
    max_life_tokens: int
    copies: tuple[int, ...]

    @property
    def num_kinds(self) -> int:
        return self.num_colors * self.num_ranks

    @property
    def deck_size(self) -> int:
        return self.num_colors * sum(self.copies)

    @property
    def num_dealt(self) -> int:
        return self.num_agents * self.hand_size

    @property
    def first_color_hint(self) -> int:
        return 2 * self.hand_size

    @property
    def first_rank_hint(self) -> int:
        return self.first_color_hint + (self.num_agents - 1) * self.num_colors

    @property
    def no_op(self) -> int:
        return self.first_rank_hint + (self.num_agents - 1) * self.num_ranks

    @property
    def all_kinds(self) -> np.uint32:
        return np.uint32((1 << self.num_kinds) - 1)

    @property
    def first_color(self) -> np.uint32:
        """The kinds of the first colour; shifted by `num_ranks` those of the next."""
        return np.uint32((1 << self.num_ranks) - 1)

    @property
    def first_rank(self) -> np.uint32:
        """The kinds of the first rank; shifted by 1 those of the next."""
        return np.uint32(sum(1 << color * self.num_ranks for color in range(self.num_colors)))

    @property
    def last_rank(self) -> np.uint32:
        return self.first_rank << (self.num_ranks - 1)

    @property
    def full_deck(self) -> tuple[np.uint32, ...]:
        """All cards, as a pile."""
        return tuple(
            np.uint32(
                sum(int(self.first_rank) << rank for rank, n in enumerate(self.copies) if n > layer)
            )
            for layer in range(max(self.copies))
        )

    def kind(self, color: int, rank: int) -> int:
        """The number of a kind, both counted from 0."""
        return color * self.num_ranks + rank


class LastMove(NamedTuple):
    """What all saw of the move before.

    `action` is -1 where there was none, `card` the kind played or discarded (else 0), `touched` has a
    bit for each card that a hint was about; `scored` says that a firework grew and `gained` that its
    last card brought an information token.
    """

    action: Int[Array, ""]
    card: UInt32[Array, ""]
    touched: UInt32[Array, ""]
    scored: Bool[Array, ""]
    gained: Bool[Array, ""]


class HanabiState(NamedTuple):
    """A game: sets of kinds and piles of cards, as in `cards`.

    Cards lie in `hands` from the oldest to the newest, each one kind, 0 where one is missing. Of each of
    them all know which kinds it is `possible` to be and which colour (bits from 0) and rank (bits from
    `num_colors`) it was `hinted` to have. `turns_left` counts down once the deck is empty.
    """

    deck: Pile
    hands: UInt32[Array, "A H"]
    possible: UInt32[Array, "A H"]
    hinted: UInt32[Array, "A H"]
    fireworks: UInt32[Array, ""]
    discards: Pile
    information: Int[Array, ""]
    lives: Int[Array, ""]
    turn: Int[Array, ""]
    turns_left: Int[Array, ""]
    last: LastMove


class Hint(NamedTuple):
    """An action read as a hint: whether it is one, for whom (1: next to move) and of which value."""

    of_color: Bool[Array, ""]
    of_rank: Bool[Array, ""]
    offset: Int[Array, ""]
    value: Int[Array, ""]


def hint_of(rules: Rules, action: Int[Array, ""]) -> Hint:
    """Reads an action as a hint; of another, offset and value mean nothing."""
    of_color = (action >= rules.first_color_hint) & (action < rules.first_rank_hint)
    of_rank = (action >= rules.first_rank_hint) & (action < rules.no_op)
    first = jnp.where(of_color, rules.first_color_hint, rules.first_rank_hint)
    number = jnp.where(of_color | of_rank, action - first, 0)
    values = jnp.where(of_color, rules.num_colors, rules.num_ranks)
    # Division by comparisons: there are at most four others to tell.
    others = jnp.int32(0)
    for offset in range(1, rules.num_agents - 1):
        others = others + (number >= offset * values)
    return Hint(of_color, of_rank, others + 1, number - others * values)


def wrapped(rules: Rules, agent: Int[Array, "..."]) -> Int[Array, "..."]:
    """An agent's number counted round the table, from -A to 2 A - 1."""
    agent = jnp.where(agent < 0, agent + rules.num_agents, agent)
    return jnp.where(agent >= rules.num_agents, agent - rules.num_agents, agent)


def deal(rules: Rules, words: UInt32[Array, "A H"]) -> HanabiState:
    """A game dealt from the full deck, by one random word for each card."""

    def draw(deck: Pile, word: UInt32[Array, ""]) -> tuple[Pile, UInt32[Array, ""]]:
        kind = cards.draw(word, deck)
        return cards.take(deck, kind), kind

    full = tuple(jnp.uint32(layer) for layer in rules.full_deck)
    deck, hands = jax.lax.scan(draw, full, words.reshape(-1))
    return start(rules, deck, hands.reshape(words.shape))


def start(rules: Rules, deck: Pile, hands: UInt32[Array, "A H"]) -> HanabiState:
    """A game that begins with the hands given."""
    nothing = jnp.uint32(0)
    return HanabiState(
        deck=deck,
        hands=hands,
        possible=jnp.full_like(hands, rules.all_kinds),
        hinted=jnp.zeros_like(hands),
        fireworks=nothing,
        discards=tuple(jnp.uint32(0) for _ in deck),
        information=jnp.int32(rules.max_info_tokens),
        lives=jnp.int32(rules.max_life_tokens),
        turn=jnp.int32(0),
        turns_left=jnp.int32(rules.num_agents),
        last=LastMove(jnp.int32(-1), nothing, nothing, jnp.bool_(False), jnp.bool_(False)),
    )


def advance(
    rules: Rules, state: HanabiState, action: Int[Array, ""], drawn: UInt32[Array, ""]
) -> HanabiState:
    """The game after a move of the agent whose turn it is; an illegal one only passes the turn.

    Args:
        drawn: the kind of the card that replaces one played or discarded; 0 if the deck is empty.
    """
    moved, told = _moved_card(rules, state, action), _told(rules, state, action)
    moves = moved.is_play | moved.is_discard
    grown = state.fireworks | moved.card
    succeeds = moved.is_play & ((moved.card & _playable(rules, state.fireworks)) != 0)
    completes = succeeds & ((moved.card & rules.last_rank) != 0)
    gained = completes & (state.information < rules.max_info_tokens)

    drawn = jnp.where(moves, drawn, 0)
    unknown = jnp.where(drawn != 0, rules.all_kinds, 0)
    possible = state.possible & jnp.where(told.touched, told.kinds, ~told.kinds)
    possible = jnp.where(told.is_target, possible, state.possible)
    hinted = state.hinted | jnp.where(told.touched, told.attribute, 0)
    slots = jnp.arange(rules.hand_size)
    is_mover = (jnp.arange(rules.num_agents) == state.turn)[:, None]
    closes_up = is_mover & moves & (slots >= moved.slot)
    return HanabiState(
        deck=cards.take(state.deck, drawn),
        hands=jnp.where(closes_up, _closed_up(state.hands, drawn), state.hands),
        possible=jnp.where(closes_up, _closed_up(possible, unknown), possible),
        hinted=jnp.where(closes_up, _closed_up(hinted, jnp.uint32(0)), hinted),
        fireworks=jnp.where(succeeds, grown, state.fireworks),
        discards=cards.put(state.discards, jnp.where(succeeds, 0, moved.card)),
        information=state.information - told.is_hint + moved.is_discard + gained,
        lives=state.lives - (moved.is_play & ~succeeds),
        turn=wrapped(rules, state.turn + 1),
        turns_left=state.turns_left - cards.is_empty(state.deck),
        last=LastMove(
            jnp.where(moves | told.is_hint, action, rules.no_op),
            moved.card,
            jnp.where(told.touched, np.uint32(1) << slots.astype(jnp.uint32), 0).sum(
                dtype=jnp.uint32
            ),
            succeeds,
            gained,
        ),
    )


def points(state: HanabiState) -> Int[Array, ""]:
    """How many cards the fireworks hold."""
    return cards.count(state.fireworks)


def is_over(rules: Rules, state: HanabiState) -> Bool[Array, ""]:
    """Whether lives, cards to play or turns have run out."""
    return (state.lives <= 0) | is_won(rules, state) | (state.turns_left <= 0)


def is_won(rules: Rules, state: HanabiState) -> Bool[Array, ""]:
    """Whether all fireworks are complete."""
    return state.fireworks == rules.all_kinds


def _playable(rules: Rules, fireworks: UInt32[Array, ""]) -> UInt32[Array, ""]:
    """The kinds that would let a firework grow."""
    # A complete firework spills into the first rank of the next colour, which is set anyway.
    return (fireworks << 1 | rules.first_rank) & ~fireworks


class _MovedCard(NamedTuple):
    """The card that is legally played or discarded, 0 if none is, and its place in the hand."""

    is_play: Bool[Array, ""]
    is_discard: Bool[Array, ""]
    slot: Int[Array, ""]
    card: UInt32[Array, ""]


def _moved_card(rules: Rules, state: HanabiState, action: Int[Array, ""]) -> _MovedCard:
    is_discard = action < rules.hand_size
    slot = jnp.where(is_discard, action, action - rules.hand_size)
    is_mover = (jnp.arange(rules.num_agents) == state.turn)[:, None]
    is_it = is_mover & (jnp.arange(rules.hand_size) == slot)
    # A slot beyond the hand, as of a hint, holds no card.
    card = jnp.where(is_it, state.hands, 0).sum(dtype=jnp.uint32)
    allowed = (card != 0) & (~is_discard | (state.information < rules.max_info_tokens))
    return _MovedCard(
        allowed & ~is_discard, allowed & is_discard, slot, jnp.where(allowed, card, 0)
    )


class _Told(NamedTuple):
    """What a legal hint tells: whom, which of their cards are of its kinds, and its bit of `hinted`."""

    is_hint: Bool[Array, ""]
    is_target: Bool[Array, "A 1"]
    touched: Bool[Array, "A H"]
    kinds: UInt32[Array, ""]
    attribute: UInt32[Array, ""]


def _told(rules: Rules, state: HanabiState, action: Int[Array, ""]) -> _Told:
    hint = hint_of(rules, action)
    value = hint.value.astype(jnp.uint32)
    of_color = rules.first_color << (value * np.uint32(rules.num_ranks))
    kinds = jnp.where(hint.of_color, of_color, rules.first_rank << value)
    bit = jnp.where(hint.of_color, value, value + np.uint32(rules.num_colors))
    target = wrapped(rules, state.turn + hint.offset)
    is_target = (jnp.arange(rules.num_agents) == target)[:, None]
    touched = is_target & ((state.hands & kinds) != 0)
    is_hint = (hint.of_color | hint.of_rank) & (state.information > 0) & touched.any()
    return _Told(is_hint, is_target & is_hint, touched & is_hint, kinds, np.uint32(1) << bit)


def _closed_up(hands: UInt32[Array, "A H"], newest: UInt32[Array, ""]) -> UInt32[Array, "A H"]:
    """Every card moved one place towards the oldest, and a new one at the end."""
    column = jnp.broadcast_to(newest, (hands.shape[0], 1))
    return jnp.concatenate([hands[:, 1:], column], axis=1)
