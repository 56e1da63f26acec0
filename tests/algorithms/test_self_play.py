"""Self-play: who plays whom, ratings, the pool, and that it learns."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.algorithms.experience import AgentsSeen, Team
from kiloworlds.algorithms.self_play import SelfPlay, SelfPlayConfig, expected_score
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.training.algorithms import fused_training
from kiloworlds.training.config import build_config


class Guess(MultiAgentEnvironment):
    """A hider picks one of three boxes, a seeker looks into one: 1 for the seeker if it is there."""

    cheap_reset: ClassVar[bool] = True

    @property
    def kinds(self):
        box = Box(0.0, 1.0, (1,))
        return (
            AgentKind.numbered("hider", 1, box, Discrete(3)),
            AgentKind.numbered("seeker", 1, box, Discrete(3)),
        )

    def reset(self, key):
        state = jnp.zeros(())
        return state, self.observe(state)

    def observe(self, state):
        return {"hider": jnp.ones((1, 1)), "seeker": jnp.ones((1, 1))}

    def step(self, key, state, action):
        found = (action["hider"][0] == action["seeker"][0]).astype(jnp.float32)
        over = jnp.ones((), bool)
        reward = jnp.stack([-found, found])
        return state, Step(self.observe(state), reward, over, ~over, {})

    def describe(self, state):
        return "three boxes"


def settings(**changes):
    values = {"num_opponents": 2, "pool_size": 4, "snapshot_interval": 2, "hidden_sizes": (4,)}
    return SelfPlayConfig(**values | changes)


def always(policies, name, action):
    """The policy of a side, changed to do always the same."""
    actor, statistics = policies[name]
    bias = actor.outputs.rest[-1].bias
    changed = jnp.zeros_like(bias).at[..., action].set(100.0)

    def where(tree):
        return tree.outputs.rest[-1].bias

    return {**policies, name: (eqx.tree_at(where, actor, changed), statistics)}


def test_in_each_half_one_side_is_played_by_its_past_selves():
    self_play = SelfPlay(settings(), Team.of(Guess()))
    state = self_play.init(jax.random.key(0))
    own, frozen = self_play.policy(state, 0.0)
    for name in ("hider", "seeker"):
        own = always(own, name, 0)
        frozen = always(frozen, name, 2)
    seen = AgentsSeen(
        {"hider": jnp.ones((8, 1, 1)), "seeker": jnp.ones((8, 1, 1))},
        jnp.ones((8, 2), bool),
        jnp.ones((8, 2), bool),
        None,
        None,
    )
    actions, _, _ = self_play.act((own, frozen), jax.random.key(1), seen, self_play.begin(8))
    np.testing.assert_array_equal(actions["hider"][:, 0], [0, 0, 0, 0, 2, 2, 2, 2])
    np.testing.assert_array_equal(actions["seeker"][:, 0], [2, 2, 2, 2, 0, 0, 0, 0])
    actions, _, _ = self_play.act((own, None), jax.random.key(1), seen, self_play.begin(8))
    assert not actions["hider"].any()  # once training is over all play by what they learnt
    assert not actions["seeker"].any()


def test_each_opponent_plays_its_own_share_of_both_halves():
    self_play = SelfPlay(settings(), Team.of(Guess()))
    state = self_play.init(jax.random.key(0))
    own, frozen = self_play.policy(state, 0.0)
    for name in ("hider", "seeker"):
        own = always(own, name, 0)
        actor, statistics = always(frozen, name, 1)[name]
        biases = jnp.eye(3)[jnp.array([1, 2])] * 100.0  # the first does 1, the second 2

        actor = eqx.tree_at(lambda tree: tree.outputs.rest[-1].bias, actor, biases)
        frozen = {**frozen, name: (actor, statistics)}
    everyone = jnp.ones((8, 2), bool)
    observed = {"hider": jnp.ones((8, 1, 1)), "seeker": jnp.ones((8, 1, 1))}
    seen = AgentsSeen(observed, everyone, everyone, None, None)
    actions, _, _ = self_play.act((own, frozen), jax.random.key(1), seen, self_play.begin(8))
    np.testing.assert_array_equal(actions["seeker"][:, 0], [1, 1, 2, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(actions["hider"][:, 0], [0, 0, 0, 0, 1, 1, 2, 2])


def test_elo_predicts_the_share_of_points():
    assert expected_score(jnp.float32(1000), jnp.float32(1000)) == 0.5
    assert expected_score(jnp.float32(1400), jnp.float32(1000)) == pytest.approx(10 / 11)
    assert expected_score(jnp.float32(1000), jnp.float32(1400)) == pytest.approx(1 / 11)


def test_who_wins_rises_and_who_loses_falls():
    self_play = SelfPlay(settings(), Team.of(Guess()))
    state = self_play.init(jax.random.key(0))._replace(opponents=jnp.array([[0, 1], [2, 3]]))
    wins, games = jnp.array([[4.0, 4.0], [0.0, 0.0]]), jnp.array([[4.0, 4.0], [4.0, 0.0]])
    rated = self_play._rate(state, wins, games)
    assert rated.own_ratings[0] == pytest.approx(1008)  # half of 16 points a surprise
    assert rated.own_ratings[1] == pytest.approx(996)  # one opponent beat it, one did not play
    np.testing.assert_allclose(rated.ratings[1], [992, 992, 1000, 1000])
    np.testing.assert_allclose(rated.ratings[0], [1000, 1000, 1008, 1000])
    np.testing.assert_allclose(rated.shares_won, [1.0, 0.0])
    again = self_play._rate(rated, jnp.zeros((2, 2)), jnp.zeros((2, 2)))  # no game ended
    np.testing.assert_allclose(again.shares_won, [1.0, 0.0])
    np.testing.assert_allclose(again.own_ratings, rated.own_ratings)


def test_the_pool_fills_with_past_selves_and_only_those_are_drawn():
    config = build_config(
        "self_play",
        "guess",
        {
            "num_envs": 16,
            "num_steps": 4,
            "total_steps": 16 * 4 * 5,
            "num_minibatches": 1,
            "learning_rate": 0.1,
            "anneal_learning_rate": False,
            "devices": 1,
            **{name: getattr(settings(), name) for name in ("num_opponents", "pool_size")},
            "snapshot_interval": 2,
            "hidden_sizes": (4,),
        },
    )
    training = fused_training(config, Guess())
    state = training.init()
    for update in range(1, 6):
        state, metrics = training.run(state, 1)
        kept = jax.tree.leaves(state.learner.pool)[0][0]
        filled = update // 2 + 1
        assert int(np.any(np.asarray(kept) != 0, axis=tuple(range(1, kept.ndim))).sum()) == filled
        assert int(state.learner.opponents.max()) < filled
    assert not np.allclose(kept[0], kept[1])
    assert metrics.train["elo/hider"].shape == (1, 1)


def test_environments_that_cannot_be_shared_out_are_refused():
    with pytest.raises(InvalidValueError, match=r"num_envs=12 cannot be shared.*nearest.* is 8"):
        build_config("self_play", "guess", {"num_envs": 12, "num_opponents": 4})
