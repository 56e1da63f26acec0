"""Blackjack: draw cards to come closer to 21 than the dealer, but not beyond."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.random import random_index
from kiloworlds.core.spaces import Discrete, Tuple
from kiloworlds.envs.drawing import Canvas, Point

# The longest hand below 17: A A, then A A A A (soft 16), 6 (12, as the ace now counts 1),
# A A A A (16), and one more. `tests/envs/toy_text` searches all hands for a longer one.
MOST_DEALER_DRAWS = 10

Card = Int[Array, ""]  # 1 is the ace, 10 also stands for jack, queen and king
Observation = tuple[Int[Array, ""], Card, Int[Array, ""]]


class BlackjackState(NamedTuple):
    """The player's cards and the dealer's first two.

    `player_total` counts aces as 1; `player_is_natural` says that the hand is an ace and a ten;
    `dealer_total` is what the dealer has drawn to, for show, and 0 until then.
    """

    player_total: Int[Array, ""]
    player_has_ace: Bool[Array, ""]
    player_is_natural: Bool[Array, ""]
    dealer_showing: Card
    dealer_hidden: Card
    dealer_total: Int[Array, ""]


class Blackjack(Environment):
    """Gymnasium's Blackjack-v1, state for state: cards from an infinite deck.

    Observation: the player's sum (4 to 31), the dealer's open card (1 to 10), and whether the
    player holds an ace that counts as 11 (0 or 1); three int32.
    Action: 0 sticks, 1 hits.
    Reward: at the end 1 for a win, 0 for a draw, -1 for a loss, before that 0.
    Episode end: terminates when the player sticks or exceeds 21. After sticking the dealer draws to
    17 or more, soft or hard.

    Args:
        natural: whether winning with an ace and a ten as the first two cards pays 1.5.
        sab: whether to play by Sutton and Barto's rules: an ace and a ten as the first two cards
            win unless the dealer has the same. `natural` is then ignored.

    Reference: R. Sutton, A. Barto, "Reinforcement Learning: An Introduction" (2018), example 5.1.
    """

    natural: bool = eqx.field(static=True, default=False)
    sab: bool = eqx.field(static=True, default=False)

    cheap_reset: ClassVar[bool] = True
    action_names: ClassVar[tuple[str, ...]] = ("stick", "hit")

    def reset(self, key: Key[Array, ""]) -> tuple[BlackjackState, Observation]:
        first, second, showing, hidden = _draw_cards(key, 4)
        state = BlackjackState(
            first + second,
            (first == 1) | (second == 1),
            _is_natural(first, second),
            showing,
            hidden,
            jnp.int32(0),
        )
        return state, _observe(state)

    def step(
        self, key: Key[Array, ""], state: BlackjackState, action: Int[Array, ""]
    ) -> tuple[BlackjackState, Step]:
        cards = _draw_cards(key, MOST_DEALER_DRAWS)
        hits = action == 1
        # The player's new card may be the dealer's first: only one of the two draws.
        drawn = jnp.where(hits, cards[0], 0)
        dealer_total = _dealer_total(state, cards)
        reward = jnp.where(hits, 0.0, self._outcome(state, dealer_total))
        state = state._replace(
            player_total=state.player_total + drawn,
            player_has_ace=state.player_has_ace | (drawn == 1),
            player_is_natural=state.player_is_natural & ~hits,
            dealer_total=jnp.where(hits, 0, dealer_total),
        )
        is_bust = state.player_total > 21
        terminated = ~hits | is_bust
        return state, Step(
            _observe(state),
            jnp.where(hits & is_bust, -1.0, reward),
            terminated,
            jnp.zeros_like(terminated),
            {},
        )

    def _outcome(self, state: BlackjackState, dealer_total: Int[Array, ""]) -> Float[Array, ""]:
        """The reward for sticking when the dealer draws to `dealer_total`."""
        player = _score(state.player_total, state.player_has_ace)
        dealer = jnp.where(dealer_total > 21, 0, dealer_total)
        reward = (player > dealer).astype(jnp.float32) - (player < dealer)
        if self.sab:
            dealer_is_natural = _is_natural(state.dealer_showing, state.dealer_hidden)
            return jnp.where(state.player_is_natural & ~dealer_is_natural, 1.0, reward)
        if self.natural:
            return jnp.where(state.player_is_natural & (reward > 0), 1.5, reward)
        return reward

    @property
    def observation_space(self) -> Tuple:
        return Tuple((Discrete(32), Discrete(11), Discrete(2)))

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)

    def render(self, state: BlackjackState) -> np.ndarray:
        """The dealer's two cards above, the player's sum below, 320 by 240 pixels."""
        hands = _hands(state)
        canvas = Canvas(320, 240, x_range=(0, 320), y_origin=0.0, background="#166534")
        for left, card in zip((24, 92), hands.dealer_cards, strict=True):
            _draw_card(canvas, (left, 130), card)
        canvas.text((170, 190), "Dealer", "#bbf7d0", size=16, align="left")
        if hands.dealer_end:
            canvas.text((170, 164), hands.dealer_end, "#ffffff", size=16, align="left")
        canvas.line((24, 112), (296, 112), "#15803d", width=2)
        canvas.text((24, 56), str(hands.player_total), "#ffffff", size=64, align="left")
        canvas.text((122, 72), "Player", "#bbf7d0", size=16, align="left")
        if hands.player_note:
            canvas.text((122, 46), hands.player_note, "#fde68a", size=16, align="left")
        return canvas.pixels()

    def describe(self, state: BlackjackState) -> str:
        """Both hands: as the player sees them, and at the end with the dealer's cards."""
        hands = _hands(state)
        note = {"": "", "bust": " (bust)"}.get(hands.player_note, f" with a {hands.player_note}")
        end = f", {hands.dealer_end}" if hands.dealer_end else ""
        return f"Player: {hands.player_total}{note}\nDealer: {' '.join(hands.dealer_cards)}{end}"


class _Hands(NamedTuple):
    """What a spectator is told.

    `player_note` is "", "usable ace" or "bust"; of the dealer's cards the second is "?" until the end;
    `dealer_end` says what it came to, "" before.
    """

    player_total: int
    player_note: str
    dealer_cards: tuple[str, str]
    dealer_end: str


def _hands(state: BlackjackState) -> _Hands:
    total, _, usable_ace = (int(part) for part in _observe(state))
    final, is_bust = int(state.dealer_total), total > 21
    cards = [int(state.dealer_showing), int(state.dealer_hidden)]
    showing, hidden = ("A" if card == 1 else str(card) for card in cards)
    end = ""
    if final:
        stands = int(_sum(jnp.int32(sum(cards)), jnp.bool_(1 in cards))) >= 17
        end = f"{'stands on' if stands else 'draws to'} {_hand(final)}"
    note = "bust" if is_bust else "usable ace" if usable_ace else ""
    return _Hands(total, note, (showing, hidden if is_bust or final else "?"), end)


def _draw_card(canvas: Canvas, corner: Point, name: str) -> None:
    """A card 56 by 80 pixels above and right of a corner; "?" lies face down."""
    left, bottom = corner
    face = "#4338ca" if name == "?" else "#ffffff"
    canvas.rectangle((left - 1, bottom - 1), (left + 57, bottom + 81), "#052e16")
    canvas.rectangle((left, bottom), (left + 56, bottom + 80), face)
    ink = "#c7d2fe" if name == "?" else "#1e293b"
    canvas.text((left + 28, bottom + 40), name, ink, size=32)


def _hand(total: int) -> str:
    return f"{total} (bust)" if total > 21 else str(total)


def _draw_cards(key: Key[Array, ""], count: int) -> list[Card]:
    ranks = random_index(key, 13, (count,))
    return [jnp.minimum(ranks[i] + 1, 10) for i in range(count)]


def _is_natural(first: Card, second: Card) -> Bool[Array, ""]:
    return (first + second == 11) & ((first == 1) | (second == 1))


def _sum(total: Int[Array, ""], has_ace: Bool[Array, ""]) -> Int[Array, ""]:
    """The sum of a hand, one ace counted as 11 where that does not exceed 21."""
    return jnp.where(has_ace & (total <= 11), total + 10, total)


def _score(total: Int[Array, ""], has_ace: Bool[Array, ""]) -> Int[Array, ""]:
    return jnp.where(total > 21, 0, _sum(total, has_ace))


def _dealer_total(state: BlackjackState, cards: list[Card]) -> Int[Array, ""]:
    """The dealer's hand after drawing from `cards` to 17 or more."""
    total = state.dealer_showing + state.dealer_hidden
    has_ace = (state.dealer_showing == 1) | (state.dealer_hidden == 1)
    for card in cards:
        drawn = jnp.where(_sum(total, has_ace) < 17, card, 0)
        total, has_ace = total + drawn, has_ace | (drawn == 1)
    return _sum(total, has_ace)


def _observe(state: BlackjackState) -> Observation:
    usable_ace = state.player_has_ace & (state.player_total <= 11)
    total = _sum(state.player_total, state.player_has_ace)
    return total, state.dealer_showing, usable_ace.astype(jnp.int32)
