"""States of compiled environments as values: going back, copying, trying out."""

import jax
import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, WrongCallError


def play(envs, steps, seed=0):
    """What random actions lead to: everything that steps give but the clock's time."""
    envs.action_space.seed(seed)
    told = []
    for _ in range(steps):
        observation, reward, terminated, truncated, infos = envs.step(envs.action_space.sample())
        infos.get("episode", {}).pop("t", None)
        told.append((observation, reward, terminated, truncated, jax.tree.leaves(infos)))
    return told


def arrays_of(tree):
    """All arrays in it: those of last observations too, which lie in arrays of objects."""
    arrays = []
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, np.ndarray) and leaf.dtype == object:
            arrays += arrays_of(leaf.tolist())
        elif isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            arrays.append(np.asarray(jax.random.key_data(leaf)))
        else:
            arrays.append(np.asarray(leaf))
    return arrays


def assert_same(one, other):
    for mine, theirs in zip(arrays_of(one), arrays_of(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def differ(one, other):
    mine, theirs = arrays_of(one), arrays_of(other)
    return len(mine) != len(theirs) or not all(map(np.array_equal, mine, theirs))


@pytest.mark.parametrize(
    ("env", "options"),
    [
        pytest.param("CartPole-v1", {}, marks=pytest.mark.slow),
        ("CartPole-v1", {"devices": 2, "length": [0.5, 0.7, 0.9, 1.1]}),
        ("FrozenLake-v1", {"autoreset_mode": "next_step"}),
        ("mpe/simple_tag_v3", {}),
    ],
)
def test_the_same_actions_lead_to_the_same_steps(env, options):
    envs = kw.make(env, 4, **options)
    envs.reset(seed=0)
    play(envs, 15)
    before = envs.snapshot()
    first = play(envs, 30, seed=1)
    observation, infos = envs.restore(before)
    assert_same(observation, before.observation)
    if env.startswith("mpe"):
        assert infos["alive"].all()
    assert_same(play(envs, 30, seed=1), first)
    envs.restore(before.with_seed(5))
    assert_same(envs.snapshot().state.environments, before.state.environments)
    assert differ(play(envs, 30, seed=1), first)
    other = kw.make(env, 4, **options)  # one that was never reset
    other.restore(before)
    assert_same(play(other, 30, seed=1), first)


def test_many_futures_of_one_state():
    envs = kw.make("Pendulum-v1", 3, g=[1.0, 5.0, 9.0], max_episode_steps=50)
    envs.reset(seed=0)
    play(envs, 10)
    ways = envs.fork([2] * 5)
    assert ways.num_envs == 5
    torques = np.linspace(-2, 2, 5, dtype=np.float32)[:, None]
    observation, *_ = ways.step(torques)
    one = envs.fork([2])
    for index, torque in enumerate(torques):
        one.restore(envs.snapshot().take([2]))
        np.testing.assert_array_equal(one.step(torque[None])[0][0], observation[index])
    mine = envs.snapshot()
    envs.step(np.zeros((3, 1), np.float32))
    assert differ(mine.observation, envs.snapshot().observation)
    assert_same(ways.fork().snapshot(), ways.snapshot())


def test_copies_with_seeds_of_their_own_part():
    envs = kw.make("FrozenLake-v1", 2, is_slippery=True)
    envs.reset(seed=0)
    twins, apart = envs.fork([0] * 32), envs.fork([0] * 32, seed=1)
    right = np.full(32, 2)
    for _ in range(5):
        together, *_ = twins.step(right)
        scattered, *_ = apart.step(right)
    assert len(set(together.tolist())) == 1
    assert len(set(scattered.tolist())) > 1


@pytest.mark.slow
def test_a_fork_keeps_the_ways_of_its_vector():
    envs = kw.make("smax/3m", 2, output="jax", autoreset_mode="disabled", check_legal=True)
    envs.reset(seed=0)
    ways = envs.fork([1, 0])
    assert repr(ways) == repr(envs)
    assert ways.autoreset_mode == envs.autoreset_mode
    assert isinstance(ways.snapshot().observation, jax.Array)
    with pytest.raises(InvalidValueError, match="illegal"):
        ways.step(np.full((2, 3), 7))  # far from any enemy


def test_finished_episodes_stay_finished():
    envs = kw.make("CartPole-v1", 2, autoreset_mode="disabled", max_episode_steps=3)
    envs.reset(seed=0)
    play(envs, 3)
    ended = envs.snapshot()
    envs.reset(seed=1)
    envs.restore(ended)
    with pytest.raises(WrongCallError, match="environment 0 has ended"):
        envs.step([0, 0])
    envs.reset(options={"reset_mask": np.ones(2, bool)})
    envs.step([0, 0])


def test_what_does_not_fit_is_refused():
    envs = kw.make("CartPole-v1", 2)
    with pytest.raises(WrongCallError, match="call reset"):
        envs.snapshot()
    envs.reset(seed=0)
    snapshot = envs.snapshot()
    with pytest.raises(InvalidValueError, match=r"a snapshot of 3 environments.*take"):
        envs.restore(snapshot.take([0, 1, 0]))
    other = kw.make("Pendulum-v1", 2)
    other.reset(seed=0)
    with pytest.raises(InvalidValueError, match="of other environments than those"):
        envs.restore(other.snapshot())
    for wrong, message in (([2], "indices holds 2"), ([], "must be numbers"), ([0.5], "must be")):
        with pytest.raises(InvalidValueError, match=message):
            snapshot.take(wrong)
    envs.close()
    with pytest.raises(WrongCallError, match="after close"):
        envs.snapshot()
