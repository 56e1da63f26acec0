"""The particle world by itself: its rules on worked cases, its arguments, its pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kiloworlds
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.mpe import groups
from kiloworlds.envs.multiagent.mpe.simple_crypto import SimpleCrypto
from kiloworlds.envs.multiagent.mpe.simple_push import SimplePush
from kiloworlds.envs.multiagent.mpe.simple_reference import SimpleReference
from kiloworlds.envs.multiagent.mpe.simple_spread import SimpleSpread
from kiloworlds.envs.multiagent.mpe.simple_tag import SimpleTag
from kiloworlds.envs.multiagent.mpe.simple_world_comm import SimpleWorldComm
from kiloworlds.envs.multiagent.mpe.world import (
    Body,
    ParticleState,
    Vector,
    _softplus,
    beyond_border,
    contact_forces,
)
from kiloworlds.testing.contract import check_environment

KEY = fast_key(5)
IDS = [id for id in kiloworlds.list_envs() if id.startswith("mpe/")]


def vector(x, y):
    return Vector(jnp.float32(x), jnp.float32(y))


def vectors(*points):
    return tuple(vector(*point) for point in points)


def at_rest(count):
    return vectors(*[(0, 0)] * count)


def test_all_nine_are_registered_with_25_steps():
    assert len(IDS) == 9
    for id in IDS:
        assert int(kiloworlds.make_environment(id).max_episode_steps) == 25


@pytest.mark.parametrize("id", ["mpe/simple_spread_v3", "mpe/simple_speaker_listener_v4"])
def test_an_episode_is_cut_after_25_steps_and_starts_over(id):
    envs = kiloworlds.make(id, 3)
    envs.reset(seed=4)
    envs.action_space.seed(4)
    for step in range(1, 27):
        _, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert rewards.shape[:2] == (3, envs.env.num_agents)
        assert not np.any(terminated)
        assert np.all(truncated == (step == 25))


# Physics.


def test_a_body_moves_with_its_old_velocity_then_slows_down_and_is_pushed():
    env = SimpleSpread(N=1, dt=0.2, damping=0.5, agent_accel=3.0)
    state = ParticleState(vectors((0.1, -0.3)), vectors((1.0, 2.0)), vectors((0.9, 0.9)))
    state, _ = env.step(KEY, state, jnp.asarray([3]))
    assert (state.positions[0].x, state.positions[0].y) == pytest.approx((0.3, 0.1))
    # 2.0 * 0.5 - 3.0 * 0.2 down.
    assert (state.velocities[0].x, state.velocities[0].y) == pytest.approx((0.5, 0.4))


def test_speed_is_limited_but_not_direction():
    env = SimpleTag(num_adversaries=1, num_obstacles=0, agent_max_speed=0.5)
    state = ParticleState(vectors((-0.8, -0.8), (0.5, 0.5)), vectors((0, 0), (-6.0, 8.0)))
    action = {"adversary": jnp.asarray([0]), "agent": jnp.asarray([0])}
    state, _ = env.step(KEY, state, action)
    velocity = state.velocities[1]
    assert (velocity.x, velocity.y) == pytest.approx((-0.3, 0.4), abs=1e-6)


def test_bodies_push_each_other_apart_as_deep_as_they_overlap():
    bodies = (Body(vector(0, 0), 0.1), Body(vector(0.12, 0.16), 0.2), Body(vector(0, 5), 0.1))
    forces = contact_forces(bodies, (), contact_force=50.0, contact_margin=1e-3)
    # They are 0.2 apart and touch at 0.3, in the direction (0.6, 0.8).
    expected = 50.0 * 0.1 * np.array([0.6, 0.8])
    np.testing.assert_allclose([forces[0].x, forces[0].y], -expected, rtol=1e-5)
    np.testing.assert_allclose([forces[1].x, forces[1].y], expected, rtol=1e-5)
    np.testing.assert_allclose([forces[2].x, forces[2].y], 0.0, atol=1e-6)


def test_bodies_at_one_point_do_not_give_nan():
    env = SimpleSpread(N=2)
    state = ParticleState(vectors((0.3, 0.3), (0.3, 0.3)), at_rest(2), vectors((0, 0), (1, 1)))
    state, step = env.step(KEY, state, jnp.asarray([0, 0]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, step)))


def test_softplus():
    numbers = np.concatenate([np.linspace(-60, 60, 4001), np.linspace(-1, 1, 4001), [-2e3, 2e3]])
    expected = np.logaddexp(0.0, numbers)
    np.testing.assert_allclose(_softplus(jnp.float32(numbers)), expected, rtol=2e-7, atol=3e-7)


@pytest.mark.parametrize(
    ("x", "penalty"), [(0.0, 0), (0.9, 0), (-0.95, 0.5), (1.2, np.exp(0.4)), (-9.0, 10)]
)
def test_the_penalty_outside(x, penalty):
    assert float(beyond_border(vector(x, 0.3))) == pytest.approx(penalty, abs=1e-5)
    assert float(beyond_border(vector(x, x))) == pytest.approx(2 * penalty, abs=1e-5)


# Rewards and observations.


def test_spread_rewards_the_team_for_covering_and_each_agent_for_keeping_apart():
    env = SimpleSpread(local_ratio=0.25, collision_penalty=3.0, agent_size=0.1, dt=0.0)
    positions = vectors((0, 0), (0.1, 0), (-0.1, 0))  # the outer ones do not touch each other
    state = ParticleState(positions, at_rest(3), vectors((0, 0.5), (0.1, 0), (-0.4, 0)))
    _, step = env.step(KEY, state, jnp.zeros(3, jnp.int32))
    team = -(0.5 + 0.0 + 0.3)
    expected = [0.75 * team - 0.25 * 3.0 * bumps for bumps in (2, 1, 1)]
    np.testing.assert_allclose(step.reward, expected, rtol=1e-5)


@pytest.mark.parametrize("other", [(0.39, 0.0), (0.41, 0.0)])
def test_spread_is_won_when_every_landmark_has_an_agent(other):
    env = SimpleSpread(N=2, terminate_on_success=True, dt=0.0)
    positions = vectors((-0.5, 0), other)
    state = ParticleState(positions, at_rest(2), vectors((-0.5, 0.09), (0.5, 0)))
    _, step = env.step(KEY, state, jnp.zeros(2, jnp.int32))
    assert bool(step.terminated) == bool(step.info["won"]) == (other[0] > 0.4)
    assert not env.reset_info(env.reset(KEY)[0])["won"]


def test_a_success_in_a_vector_starts_over_and_says_so():
    envs = kiloworlds.make("mpe/simple_spread_v3", 64, N=1, terminate_on_success=True)
    envs.reset(seed=3)
    envs.action_space.seed(3)
    wins = 0
    for _ in range(24):
        _, _, terminated, _, info = envs.step(envs.action_space.sample())
        final = info["final_info"]["won"] if "final_info" in info else np.zeros(64, bool)
        assert np.array_equal(terminated.all(1), final)
        assert np.array_equal(terminated.any(1), final)
        wins += int(terminated.sum())
    assert wins > 0


def test_who_sees_whom_in_forests():
    """Of three followers one is in each forest and one outside; the agent is in the first forest."""
    env = SimpleWorldComm(num_good=1, num_obstacles=0, num_food=1, dt=0.0)
    forests = [(-0.5, 0.5), (0.5, 0.5)]
    everyone = [(0, -0.9), (-0.6, 0.5), (0.6, 0.5), (0.3, -0.9), (-0.4, 0.4)]
    state = ParticleState(
        vectors(*everyone),
        vectors(*[(0.1 * index, -0.2) for index in range(5)]),
        vectors((0.9, -0.9), *forests),
        messages=((jnp.float32(0),) * 4,),
    )
    observation = env.observe(state)
    leader, followers, agent = (
        observation[name] for name in ("leadadversary", "adversary", "agent")
    )
    # Own velocity and position, food and forests; then the four others, leader and followers first.
    others = {"leader": leader[0, 10:18], "agent": agent[0, 10:18]}
    others |= {f"follower {index}": followers[index, 10:18] for index in range(3)}
    seen = {name: np.any(np.reshape(row, (4, 2)), axis=1).tolist() for name, row in others.items()}
    assert seen == {
        "leader": [True, True, True, True],
        "follower 0": [False, False, False, True],  # in the first forest, as the agent is
        "follower 1": [False, False, False, False],
        "follower 2": [True, False, False, False],  # outside, as the leader is
        "agent": [False, True, False, False],
    }
    # The agent's velocity, and where one is: 1 in a forest.
    np.testing.assert_allclose(followers[0, 18:20], [0.4, -0.2], rtol=1e-6)
    np.testing.assert_allclose(followers[1, 18:20], 0.0)
    inside = [leader[0, 20:22], *followers[:, 20:22], agent[0, 18:20]]
    assert np.array_equal(inside, [[-1, -1], [1, -1], [-1, 1], [-1, -1], [1, -1]])


def test_crypto_rewards_what_bob_and_eve_make_of_the_secret():
    env = SimpleCrypto()
    state = env.reset(KEY)[0]._replace(goals=(jnp.int32(1), jnp.int32(0)))
    actions = {"eve": jnp.asarray([3]), "bob": jnp.asarray([1]), "alice": jnp.asarray([2])}
    state, step = env.step(KEY, state, actions)
    # A wrong symbol is 1 off in two of the four numbers.
    np.testing.assert_allclose(step.reward, [-2.0, 2.0, 2.0])
    np.testing.assert_allclose(step.observation["eve"], [[0, 0, 1, 0]])
    np.testing.assert_allclose(step.observation["bob"], [[1, 0, 0, 0, 0, 0, 1, 0]])
    np.testing.assert_allclose(step.observation["alice"], [[0, 1, 0, 0, 1, 0, 0, 0]])


def test_crypto_counts_no_error_of_who_says_nothing():
    env = SimpleCrypto(continuous_actions=True)
    state, _ = env.reset(KEY)
    silent, half = jnp.zeros((1, 4)), jnp.full((1, 4), 0.5)
    _, step = env.step(KEY, state, {"eve": silent, "bob": half, "alice": half})
    np.testing.assert_allclose(step.reward, [0.0, -1.0, -1.0])


def test_reference_hears_the_other_and_decodes_both_parts_of_an_action():
    env = SimpleReference(dt=0.5, damping=0.0)
    state, _ = env.reset(KEY)
    state, step = env.step(KEY, state, jnp.asarray([5 * 7 + 4, 5 * 2 + 1]))
    assert np.argmax(step.observation[0, -10:]) == 2
    assert np.argmax(step.observation[1, -10:]) == 7
    np.testing.assert_allclose(step.observation[:, :2], [[0, 2.5], [-2.5, 0]])


def test_continuous_actions_count_as_the_nearest_valid_ones():
    env = SimplePush(continuous_actions=True)
    state, _ = env.reset(KEY)
    wild = {"adversary": jnp.asarray([[9.0, -4.0, 2.0, 0.5, 7.0]]), "agent": jnp.full((1, 5), 3.0)}
    tame = {"adversary": jnp.asarray([[1.0, 0.0, 1.0, 0.5, 1.0]]), "agent": jnp.ones((1, 5))}
    first, second = (env.step(KEY, state, action)[0] for action in (wild, tame))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))


@pytest.mark.parametrize(
    ("id", "kwargs", "shared"),
    [
        ("simple_v3", {}, True),
        ("simple_speaker_listener_v4", {}, True),
        ("simple_spread_v3", {}, False),
        ("simple_spread_v3", {"local_ratio": 0.0}, True),
        ("simple_reference_v3", {"local_ratio": 0}, True),
        ("simple_reference_v3", {"local_ratio": [0.0, 0.5]}, False),
        ("simple_tag_v3", {}, False),
    ],
)
def test_which_rewards_are_the_teams(id, kwargs, shared):
    assert kiloworlds.make_environment(f"mpe/{id}", **kwargs).team_reward is shared


# Many bodies.

MANY = [
    ("simple_spread_v3", {"N": 9, "num_agent_neighbors": 3, "num_landmark_neighbors": 2}),
    pytest.param("simple_spread_v3", {"N": 12}, marks=pytest.mark.slow),
    pytest.param(
        "simple_tag_v3",
        {"num_good": 5, "num_adversaries": 6, "num_obstacles": 0},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "simple_adversary_v3", {"N": 8, "continuous_actions": True}, marks=pytest.mark.slow
    ),
    pytest.param(
        "simple_world_comm_v3", {"num_adversaries": 7, "num_forests": 0}, marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("id", "kwargs"), MANY)
@pytest.mark.slow
def test_worlds_of_many_bodies_meet_the_contract(id, kwargs):
    env = kiloworlds.make_environment(f"mpe/{id}", **kwargs)
    assert isinstance(jax.eval_shape(env.reset, KEY)[0].inner.positions, groups.Many)
    check_environment(env)


@pytest.mark.slow
def test_many_bodies_move_as_few_do(monkeypatch):
    env = SimpleWorldComm(num_obstacles=2)

    def run():
        state, first = env.reset(KEY)
        action = env.action_space.sample(fast_key(9))
        state, step = env.step(KEY, state, action)
        return first, step.observation, step.reward, list(state.positions)

    few = run()
    monkeypatch.setattr(groups, "MOST_PAIRS", 1)
    many = run()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), few, many)


def test_thirty_agents_compile_to_a_short_program():
    """A program that names each pair has forty thousand lines and takes minutes to compile."""
    env = kiloworlds.make_environment("mpe/simple_spread_v3", N=30)
    state = jax.eval_shape(env.reset, KEY)[0]
    action = jax.ShapeDtypeStruct((30,), jnp.int32)
    lines = jax.jit(env.step).lower(KEY, state, action).as_text().splitlines()
    assert len(lines) < 1000


# Parameters.


def test_parameters_differ_between_environments():
    masses = [0.05, 0.3]
    envs = kiloworlds.make("mpe/simple_spread_v3", 2, N=2, dt=masses, agent_size=[0.1, 0.2])
    envs.reset(seed=0)
    push = np.full((2, 2), 2)
    observations = [envs.step(push)[0] for _ in range(2)]
    velocities = observations[0][:, :, 0]
    # 5 times dt to the right, unless two bodies happen to touch.
    np.testing.assert_allclose(velocities, np.array(masses)[:, None] * 5.0 * np.ones(2), rtol=1e-4)


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("simple_spread_v3", {"N": 0}, "N=0 must be a whole number between 1 and 1000"),
        ("simple_spread_v3", {"N": 10**9}, "the nearest valid value is 1000"),
        ("simple_spread_v3", {"local_ratio": np.array([0.5, 2.0])}, "local_ratio=2.0 .* is 1"),
        ("simple_spread_v3", {"local_ratio": 1.5}, "local_ratio=1.5 must be a number between 0"),
        ("simple_spread_v3", {"num_agent_neighbors": 0}, "num_agent_neighbors=0 must be"),
        ("simple_spread_v3", {"terminate_on_success": 1}, "must be True or False"),
        ("simple_spread_v3", {"max_cycles": 50}, "takes no argument 'max_cycles'"),
        ("simple_tag_v3", {"num_good": 0}, "num_good=0 must be"),
        ("simple_tag_v3", {"num_obstacles": -1}, "the nearest valid value is 0"),
        ("simple_adversary_v3", {"N": 2.5}, "N=2.5 must be a whole number"),
        ("simple_adversary_v3", {"num_landmark_neighbors": "two"}, "num_landmark_neighbors='two'"),
        ("simple_world_comm_v3", {"num_food": 0}, "num_food=0 must be"),
        ("simple_world_comm_v3", {"num_forests": 33}, "the nearest valid value is 32"),
        ("simple_reference_v3", {"local_ratio": -1.0}, "the nearest valid value is 0"),
        ("simple_crypto_v3", {"continuous_actions": "yes"}, "must be True or False"),
    ],
)
def test_wrong_arguments_are_refused_in_words(id, kwargs, message):
    with pytest.raises(InvalidValueError, match=message):
        kiloworlds.make_environment(f"mpe/{id}", **kwargs)


# Pictures.


@pytest.mark.parametrize("id", IDS)
def test_pictures_show_what_changes(id):
    env = kiloworlds.make_environment(id).unwrapped
    state, _ = env.reset(KEY)
    before = env.render(state)
    action = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2), env.action_space.sample(KEY))
    for _ in range(2):
        state, _ = env.step(KEY, state, action)
    after = env.render(state)
    assert before.dtype == np.uint8
    assert before.shape == after.shape
    assert np.any(before != after)


def test_a_picture_zooms_out_to_who_has_left():
    env = SimpleSpread(N=2)
    state = ParticleState(vectors((0, 0), (5, 0)), at_rest(2), vectors((0.5, 0.5), (-0.5, 0.5)))
    picture = env.render(state)
    blue = (picture[..., 2] > 200) & (picture[..., 0] < 80)
    columns = np.flatnonzero(blue.any(axis=0))
    assert columns.min() < 320
    assert columns.max() > 550
    assert not blue[:, -3:].any()
