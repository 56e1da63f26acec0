from collections import Counter
from functools import cache

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.blackjack import BlackjackEnv

from kiloworlds.core.random import fast_key
from kiloworlds.core.registry import make_environment
from kiloworlds.envs.toy_text.blackjack import MOST_DEALER_DRAWS, Blackjack, BlackjackState
from kiloworlds.testing.distributions import matches_probabilities, same_distribution

CHANCES = {card: (4 if card == 10 else 1) / 13 for card in range(1, 11)}


def _best(total, has_ace):
    return total + 10 if has_ace and total + 10 <= 21 else total


def _state(player, dealer):
    return BlackjackState(
        jnp.int32(sum(player)),
        jnp.bool_(1 in player),
        jnp.bool_(sorted(player) == [1, 10]),
        jnp.int32(dealer[0]),
        jnp.int32(dealer[1]),
        jnp.int32(0),
    )


@cache
def _compiled_step(natural, sab):
    return jax.jit(jax.vmap(Blackjack(natural=natural, sab=sab).step, (0, None, None)))


def _sample(env, state, action, count, seed=0):
    """Rows (sum, dealer's card, usable ace, twice the reward, terminated)."""
    keys = jax.random.split(fast_key(seed), count)
    _, step = _compiled_step(env.natural, env.sab)(keys, state, jnp.int32(action))
    assert step.reward.dtype == jnp.float32
    assert all(part.dtype == jnp.int32 for part in step.observation)
    parts = *step.observation, 2 * step.reward, step.terminated
    return np.stack([np.asarray(part) for part in parts], axis=1).astype(int)


def test_no_dealer_draws_more_cards_than_are_dealt():
    @cache
    def longest(total, has_ace):
        if _best(total, has_ace) >= 17:
            return 0
        return 1 + max(longest(total + card, has_ace or card == 1) for card in CHANCES)

    hands = [(first, second) for first in CHANCES for second in CHANCES]
    assert max(longest(sum(hand), 1 in hand) for hand in hands) == MOST_DEALER_DRAWS


@pytest.mark.parametrize("player", [(10, 8), (1, 5)])
def test_sticking_pays_as_often_as_it_should(player):
    """Against probabilities computed by going through all the dealer's hands."""

    @cache
    def finals(total, has_ace):
        best = _best(total, has_ace)
        if best >= 17:
            return {0 if best > 21 else best: 1.0}
        chances = Counter()
        for card, chance in CHANCES.items():
            for final, probability in finals(total + card, has_ace or card == 1).items():
                chances[final] += chance * probability
        return dict(chances)

    best, p_values = _best(sum(player), 1 in player), []
    for first in CHANCES:
        for second in CHANCES:
            expected = Counter()
            for final, probability in finals(first + second, 1 in (first, second)).items():
                expected[2 * int(np.sign(best - final)), 1] += probability
            state = _state(player, (first, second))
            outcomes = _sample(Blackjack(), state, 0, 3000, seed=10 * first + second)[:, 3:]
            p_values.append(matches_probabilities(outcomes, expected))
    assert min(p_values) * len(p_values) > 1e-3


def test_hitting_leads_to_every_hand_as_often_as_it_should():
    env, p_values = Blackjack(), []
    for total in range(2, 22):
        for has_ace in (False, True):
            expected = Counter()
            for card, chance in CHANCES.items():
                ace = has_ace or card == 1
                best = _best(total + card, ace)
                usable, is_bust = best != total + card, best > 21
                expected[best, 3, int(usable), -2 * int(is_bust), int(is_bust)] += chance
            state = _state((total,), (3, 4))._replace(player_has_ace=jnp.bool_(has_ace))
            p_values.append(matches_probabilities(_sample(env, state, 1, 2000, total), expected))
    assert min(p_values) * len(p_values) > 1e-3


@pytest.mark.parametrize(
    "rules", [{}, {"natural": True}, {"sab": True}, {"sab": True, "natural": True}]
)
@pytest.mark.parametrize("player", [(1, 10), (1, 4, 6), (10, 6), (1, 1)])
def test_played_out_rounds_equal_gymnasiums(rules, player):
    env, reference = Blackjack(**rules), BlackjackEnv(**rules)
    reference.reset(seed=0)
    for dealer in [(1, 10), (10, 1), (1, 1), (10, 6), (2, 3)]:
        for action in (0, 1):
            expected = []
            for _ in range(500):
                reference.player, reference.dealer = list(player), list(dealer)
                observation, reward, terminated, _, info = reference.step(action)
                assert info == {}
                expected.append((*observation, 2 * reward, terminated))
            samples = _sample(env, _state(player, dealer), action, 500)
            assert same_distribution(samples, np.array(expected, int)) > 1e-5


def test_initial_hands_have_their_probabilities():
    state, observation = jax.vmap(Blackjack().reset)(jax.random.split(fast_key(2), 50_000))
    total, showing, usable_ace = (np.asarray(part) for part in observation)
    expected, dealers = Counter(), Counter()
    for first, chance in CHANCES.items():
        for second, other_chance in CHANCES.items():
            best = _best(first + second, 1 in (first, second))
            is_natural = sorted((first, second)) == [1, 10]
            expected[best, int(1 in (first, second)), int(is_natural)] += chance * other_chance
            dealers[first, second] += chance * other_chance
    hands = np.stack([total, usable_ace, np.asarray(state.player_is_natural)], axis=1)
    assert matches_probabilities(hands, expected) > 1e-3
    dealt = np.stack([showing, np.asarray(state.dealer_hidden)], axis=1)
    assert matches_probabilities(dealt, dealers) > 1e-3


def test_a_hit_ends_a_natural():
    env = Blackjack(natural=True)
    state, _ = env.step(fast_key(0), _state((1, 10), (10, 10)), jnp.int32(1))
    assert not state.player_is_natural


def test_registered_id_matches_gymnasium():
    env, reference = make_environment("Blackjack-v1"), gymnasium.make("Blackjack-v1")
    assert env.observation_space.to_gymnasium() == reference.observation_space
    assert env.action_space.to_gymnasium() == reference.action_space
    assert (env.sab, env.natural) == (reference.unwrapped.sab, reference.unwrapped.natural)


def test_hands_are_shown_as_text():
    env = Blackjack()
    assert env.describe(_state((1, 5), (1, 9))) == "Player: 16 with a usable ace\nDealer: A ?"
    assert env.describe(_state((10, 5), (7, 9))) == "Player: 15\nDealer: 7 ?"


def test_dealers_hand_is_shown_at_the_end():
    env = Blackjack()
    stood, step = env.step(fast_key(0), _state((10, 8), (1, 9)), jnp.int32(0))
    assert env.describe(stood) == "Player: 18\nDealer: A 9, stands on 20"
    assert step.reward == -1
    finals = set()
    for seed in range(40):
        drew, step = env.step(fast_key(seed), _state((10, 8), (10, 6)), jnp.int32(0))
        final = int(drew.dealer_total)
        finals.add(final)
        bust = " (bust)" if final > 21 else ""
        assert env.describe(drew) == f"Player: 18\nDealer: 10 6, draws to {final}{bust}"
        assert step.reward == (1 if final > 21 else np.sign(18 - final))
    assert min(finals) >= 17
    assert {final > 21 for final in finals} == {True, False}
    lost, _ = env.step(fast_key(0), _state((10, 10, 1), (10, 6)), jnp.int32(1))
    assert lost.dealer_total == 0
    assert env.describe(lost) == f"Player: {lost.player_total} (bust)\nDealer: 10 6"


def test_a_picture_shows_what_the_text_says():
    env = Blackjack()
    begun = env.render(_state((1, 5), (1, 9)))
    assert begun.shape == (240, 320, 3)
    others = [_state((1, 6), (1, 9)), _state((10, 6), (1, 9)), _state((1, 5), (2, 9))]
    assert all((env.render(state) != begun).any() for state in others)
    assert (env.render(_state((1, 5), (1, 8))) == begun).all()  # the hidden card is hidden
    stood, _ = env.step(fast_key(0), _state((1, 5), (1, 9)), jnp.int32(0))
    assert (env.render(stood) != begun)[:120].any()
