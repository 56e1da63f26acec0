"""Hanabi against the jaxmarl package: the same decks and moves, state by state."""

import jax
import numpy as np
import pytest
from hanabi_tables import bit_of, shuffled_deck, start_with

from kiloworlds.envs.multiagent.hanabi.environment import Hanabi

jaxmarl = pytest.importorskip("jaxmarl")

CASES = {
    "two": {"num_agents": 2},
    "three": {"num_agents": 3},
    "very small": {
        "num_agents": 2,
        "num_colors": 1,
        "hand_size": 2,
        "max_info_tokens": 3,
        "max_life_tokens": 1,
    },
    "other": {
        "num_agents": 4,
        "num_colors": 6,
        "num_ranks": 4,
        "hand_size": 3,
        "max_info_tokens": 5,
        "max_life_tokens": 2,
    },
}
GAMES = 48


@pytest.mark.parametrize("case", CASES)
def test_games_equal_jaxmarl(case):
    env = Hanabi(**CASES[case])
    rules, rng = env.rules, np.random.default_rng(3)
    settings = CASES[case] | {
        "hand_size": rules.hand_size,
        "num_cards_of_rank": np.array(rules.copies),
    }
    peer = jaxmarl.make("hanabi", **settings)
    decks = np.array([shuffled_deck(rules, rng) for _ in range(GAMES)])
    kinds = np.array([[bit_of(rules, card) for card in deck] for deck in decks])
    start = jax.jit(jax.vmap(lambda deck: start_with(rules, deck)))
    look = jax.jit(jax.vmap(lambda state: (env.available_actions(state), env.observe(state))))
    step = jax.jit(jax.vmap(env.step_with))
    peer_legal = jax.jit(jax.vmap(peer.get_legal_moves))
    peer_step = jax.jit(jax.vmap(peer.step_env, (None, 0, 0)))

    states = start(kinds)
    peer_seen, peer_states = jax.jit(jax.vmap(peer.reset_from_deck_of_pairs))(decks)
    num_drawn = np.full(GAMES, rules.num_dealt)
    running = np.ones(GAMES, bool)
    ends = {"won": 0, "lives": 0, "turns": 0}
    while running.any():
        legal, seen = map(np.asarray, look(states))
        _equal(legal, _stacked(peer, peer_legal(peer_states)) > 0, running)
        _equal(seen, _stacked(peer, peer_seen), running, tolerance=2e-7)
        actions = _choose(rules, states, legal, rng)
        turn = np.asarray(states.turn)
        moves_card = actions[np.arange(GAMES), turn] < rules.first_color_hint
        left = num_drawn < rules.deck_size
        following = kinds[np.arange(GAMES), np.minimum(num_drawn, rules.deck_size - 1)]
        num_drawn += moves_card & left
        states, result = step(states, actions, np.where(left, following, 0).astype(np.uint32))
        of_agents = {agent: actions[:, i] for i, agent in enumerate(peer.agents)}
        peer_seen, peer_states, reward, done, _ = peer_step(
            jax.random.key(0), peer_states, of_agents
        )
        _equal(np.asarray(result.observation), _stacked(peer, peer_seen), running, tolerance=2e-7)
        _equal(np.asarray(result.reward), _stacked(peer, reward), running)
        _equal(np.asarray(result.terminated), np.asarray(done["__all__"]), running)
        _equal(np.asarray(result.info["score"]), np.asarray(peer_states.score), running)
        ended = running & np.asarray(result.terminated)
        bombed, won = np.asarray(states.lives) <= 0, np.asarray(result.info["won"])
        ends["won"] += (ended & won).sum()
        ends["lives"] += (ended & bombed).sum()
        ends["turns"] += (ended & ~won & ~bombed).sum()
        running = running & ~ended
    if case != "very small":
        assert ends["turns"] > 0
    else:
        assert ends["won"] > 0
        assert ends["lives"] > 0


def _stacked(peer, of_agents):
    return np.stack([np.asarray(of_agents[agent]) for agent in peer.agents], axis=1)


def _equal(ours, theirs, running, tolerance=0.0):
    np.testing.assert_allclose(ours[running], theirs[running], rtol=0.0, atol=tolerance)


def _choose(rules, states, legal, rng):
    """Random moves that prefer cards that fit, and mostly spare those that do not."""
    fireworks, hands = np.asarray(states.fireworks), np.asarray(states.hands)
    fitting = (fireworks << 1 | rules.first_rank) & ~fireworks
    fits = (hands & fitting[:, None, None]) != 0
    weights = rng.random(legal.shape)
    plays = weights[:, :, rules.hand_size : rules.first_color_hint]
    careful = rng.random((len(hands), 1, 1)) < 0.95
    plays[:] = np.where(careful, np.where(fits, plays + 1.0, plays - 1.0), plays)
    return np.argmax(np.where(legal, weights, -2.0), axis=-1).astype(np.int32)
