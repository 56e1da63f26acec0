import functools
import os
import threading
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pool_envs import CountingEnv, EchoEnv, SlowEnv

from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.vector.faults import EnvironmentFailedError
from kiloworlds.vector.process.pool import ProcessExecutor
from kiloworlds.vector.sync import SyncExecutor
from kiloworlds.vector.thread import ThreadExecutor

NESTED = spaces.Dict(
    picture=spaces.Box(0, 255, (3, 3), np.uint8),
    parts=spaces.Tuple([spaces.Discrete(4, start=2), spaces.Text(5), spaces.MultiBinary(3)]),
)


@pytest.fixture(params=[ProcessExecutor, ThreadExecutor], ids=["process", "thread"])
def pool(request):
    """Makes pools of either kind and closes them."""
    made = []

    def make(*args, **kwargs):
        made.append(request.param(*args, **kwargs))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def assert_same(ours, theirs):
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for left, right in zip(ours, theirs, strict=True):
            assert_same(left, right)
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        for left, right in zip(ours, theirs, strict=True):
            assert_same(left, right)
    else:
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        np.testing.assert_array_equal(ours, theirs)


def without_seconds(infos):
    if "episode" in infos:
        infos["episode"].pop("t")
    return infos


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_equals_the_serial_loop(pool, mode, num_workers):
    make = functools.partial(CountingEnv, length=5, truncates=True)
    ours = pool(make, 5, num_workers=num_workers, autoreset_mode=mode)
    theirs = SyncExecutor(make, 5, autoreset_mode=mode)
    assert_same(ours.reset(seed=3), theirs.reset(seed=3))
    rng = np.random.default_rng(0)
    for _ in range(13):
        actions = rng.integers(0, 3, 5)
        left, right = ours.step(actions), theirs.step(actions)
        assert_same(left[:4], right[:4])
        assert_same(without_seconds(left[4]), without_seconds(right[4]))
        over = left[2] | left[3]
        if mode == "disabled" and over.any():
            options = {"reset_mask": over, "k": 1}
            assert_same(ours.reset(options=options), theirs.reset(options=options))


@pytest.mark.parametrize("num_envs", [1, 2, 255, 256])
def test_equals_the_serial_loop_on_a_real_environment(pool, num_envs):
    make = functools.partial(gymnasium.make, "CartPole-v1")
    ours, theirs = pool(make, num_envs), SyncExecutor(make, num_envs)
    assert_same(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    rng = np.random.default_rng(0)
    for _ in range(40):
        actions = rng.integers(0, 2, num_envs)
        assert_same(ours.step(actions)[:4], theirs.step(actions)[:4])


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    [
        (NESTED, spaces.Discrete(3, start=1)),
        (spaces.Box(-1, 1, (2,), np.float16), spaces.Box(-1, 1, (2, 2))),
        (spaces.MultiDiscrete([3, 3]), spaces.MultiDiscrete([2, 5])),
        (spaces.Discrete(4), spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 1, (1,)))),
        (spaces.Discrete(4), spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(2)])),
        (spaces.Text(4), spaces.Text(3)),
        (spaces.Sequence(spaces.Discrete(3)), spaces.Discrete(2)),
        (spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(2)), spaces.Discrete(2)),
        (spaces.Discrete(2), spaces.Sequence(spaces.Discrete(3))),
    ],
    ids=str,
)
def test_every_space(pool, observation_space, action_space):
    make = functools.partial(EchoEnv, observation_space, action_space)
    ours, theirs = pool(make, 3, num_workers=2), SyncExecutor(make, 3)
    assert_same(ours.reset(seed=0)[0], theirs.reset(seed=0)[0])
    ours.action_space.seed(0)
    for _ in range(6):
        actions = ours.action_space.sample()
        left, right = ours.step(actions), theirs.step(actions)
        assert_same(left[:4], right[:4])
        assert ("final_obs" in left[4]) == ("final_obs" in right[4])
        if "final_obs" in right[4]:
            assert_same(left[4]["final_obs"], right[4]["final_obs"])


def test_observations_may_be_kept(pool):
    envs = pool(CountingEnv, 4)
    first, _ = envs.reset(seed=0)
    kept = first.copy()
    for _ in range(3):
        envs.step(np.ones(4, int))
    np.testing.assert_array_equal(first, kept)


def test_views_stay_whole_for_one_more_step(pool):
    envs = pool(CountingEnv, 4, copy=False)
    first, _ = envs.reset(seed=0)
    kept = first.copy()
    second = envs.step(np.ones(4, int))[0]
    np.testing.assert_array_equal(first, kept)
    assert not first.flags.owndata
    envs.step(np.ones(4, int))
    assert (second[:, 1] == 1).all()
    assert (first[:, 1] == 2).all()  # the copy of the observations that the second step wrote


def test_first_finished_is_first_served(pool):
    makes = [functools.partial(SlowEnv, 0.5 if i == 0 else 0.0, length=100) for i in range(4)]
    envs = pool(makes, 4, num_workers=4, batch_size=2)
    envs.async_reset(seed=0)
    seen = []
    rows = []
    for _ in range(2):
        _, _, _, _, infos = envs.recv()
        rows.extend(infos["env_id"].tolist())
    envs.send(np.zeros(4, int), np.arange(4))
    start = time.monotonic()
    while time.monotonic() - start < 0.3:
        infos = envs.recv()[4]
        seen.extend(infos["env_id"].tolist())
        envs.send(np.zeros(2, int), infos["env_id"])
    assert sorted(rows) == [0, 1, 2, 3]
    assert 0 not in seen
    assert len(seen) > 10
    assert {1, 2, 3} == set(seen)


def test_each_environment_advances_by_its_own_actions(pool):
    envs = pool(functools.partial(CountingEnv, length=1000), 6, num_workers=2, batch_size=2)
    envs.async_reset(seed=0)
    steps, totals = np.zeros(6, int), np.zeros(6)
    rng = np.random.default_rng(0)
    pending = {}
    for _ in range(60):
        observations, rewards, _, _, infos = envs.recv()
        for position, row in enumerate(infos["env_id"].tolist()):
            if row in pending:
                steps[row] += 1
                assert rewards[position] == pytest.approx(pending[row] + steps[row] / 10)
            assert observations[position, 1] == steps[row]
            totals[row] += rewards[position]
        actions = rng.integers(0, 3, 2)
        pending.update(zip(infos["env_id"].tolist(), actions.tolist(), strict=True))
        envs.send(actions, infos["env_id"])
    assert steps.sum() >= 110


def test_ordered_results_come_as_they_were_sent(pool):
    makes = [functools.partial(SlowEnv, 0.02 * (i % 2), length=100) for i in range(4)]
    envs = pool(makes, 4, num_workers=2, batch_size=2, ordered=True)
    envs.async_reset(seed=0)
    order = []
    for _ in range(6):
        _, _, _, _, infos = envs.recv()
        order.append(infos["env_id"].tolist())
        envs.send(np.zeros(2, int), infos["env_id"])
    assert order == [[0, 1], [2, 3]] * 3


def test_calls_and_attributes(pool):
    envs = pool(functools.partial(CountingEnv, length=7), 3, num_workers=2)
    envs.reset(seed=0)
    assert envs.call("double", 4) == (8, 8, 8)
    assert envs.call_some([2], "double", 5) == (10,)
    with pytest.raises(InvalidValueError, match="env_ids holds 3; there are 0 to 2"):
        envs.call_some([3], "double", 5)
    assert envs.get_attr("length") == (7, 7, 7)
    envs.set_attr("length", [1, 2, 3])
    assert envs.get_attr("length") == (1, 2, 3)
    assert envs.call_some([2, 0], "length") == (3, 1)
    assert envs.step(np.zeros(3, int))[2].tolist() == [True, False, False]
    with pytest.raises(EnvironmentFailedError, match=r"environment 0 failed in call.*'dubble'"):
        envs.call("dubble")


def test_an_asynchronous_episode_is_as_long_as_its_steps(pool):
    envs = pool(functools.partial(CountingEnv, length=3), 2)
    envs.async_reset(seed=0)
    lengths = []
    for _ in range(7):
        *_, infos = envs.recv()
        if "episode" in infos:
            lengths += infos["episode"]["l"].tolist()
        envs.send(np.ones(2, int), infos["env_id"])
    assert lengths == [3, 3, 3, 3]


def test_a_spec_that_cannot_be_pickled_is_left_out():
    def make():
        env = gymnasium.make("CartPole-v1")
        env.unwrapped.spec.kwargs["lock"] = threading.Lock()
        return gymnasium.wrappers.TransformReward(env, lambda reward: 2 * reward)

    envs = ProcessExecutor(make, 2)
    envs.reset(seed=0)
    assert envs.step(np.ones(2, int))[1].tolist() == [2.0, 2.0]
    envs.close()


def test_rendering(pool):
    envs = pool(functools.partial(gymnasium.make, "FrozenLake-v1", render_mode="ansi"), 3)
    envs.reset(seed=0)
    assert envs.render_mode == "ansi"
    assert all("FFF" in frame for frame in envs.render())
    envs.step(np.array([0, 1, 2]))
    assert envs.render([2, 0]) == (envs.render()[2], envs.render()[0])
    with pytest.raises(InvalidValueError, match="env_ids holds 3"):
        envs.render([3])


def test_workers_are_other_processes_and_leave_nothing_behind():
    envs = ProcessExecutor(CountingEnv, 4, num_workers=2)
    envs.reset(seed=0)
    pids = envs.worker_pids
    assert os.getpid() not in pids
    assert len(set(pids)) == 2
    before = len(os.listdir("/proc/self/fd"))
    ProcessExecutor(CountingEnv, 4, num_workers=2).close()
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # listdir's own
    envs.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(WrongCallError, match="after close"):
        envs.step(np.zeros(4, int))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_workers": 0}, "num_workers=0"),
        ({"num_workers": 5}, "num_workers=5.*nearest valid value is 4"),
        ({"batch_size": 5}, "batch_size=5 is more than num_envs=4"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"on_nonfinite": "skip"}, "on_nonfinite='skip' is not one of 'mask'"),
        ({"step_timeout": 0}, "step_timeout=0 must be seconds above 0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InvalidValueError, match=message):
        ProcessExecutor(CountingEnv, 4, **settings)


def test_calls_out_of_order(pool):
    envs = pool(CountingEnv, 4, num_workers=2, batch_size=2)
    with pytest.raises(WrongCallError, match="before reset"):
        envs.send(np.zeros(2, int), [0, 1])
    with pytest.raises(WrongCallError, match=r"batch_size=2 results, but 0"):
        envs.recv()
    envs.async_reset(seed=0)
    with pytest.raises(WrongCallError, match=r"4 results are pending"):
        envs.step(np.zeros(4, int))
    with pytest.raises(WrongCallError, match="environment 0, which still works"):
        envs.send(np.zeros(2, int), [0, 1])
    for _ in range(2):
        envs.recv()
    with pytest.raises(InvalidValueError, match="names an environment twice"):
        envs.send(np.zeros(2, int), [1, 1])
    with pytest.raises(InvalidValueError, match="env_ids holds 4; there are 0 to 3"):
        envs.send(np.zeros(2, int), [1, 4])
    with pytest.raises(InvalidValueError, match=r"2 environments need \(2,\)"):
        envs.send(np.zeros(3, int), [0, 1])
    envs.send(np.zeros(2, int), [0, 1])
    assert sorted(envs.recv()[4]["env_id"].tolist()) == [0, 1]


def test_what_cannot_be_pickled_is_named():
    lock = __import__("threading").Lock()
    with pytest.raises(InvalidValueError, match=r"cannot be sent.*'lock' \(lock"):
        ProcessExecutor(lambda: (lock, CountingEnv())[1], 2)


def test_environments_with_differing_spaces_are_named():
    makes = [CountingEnv, lambda: CountingEnv(space=spaces.Box(0, 1, (3,), np.float64))]
    with pytest.raises(InvalidValueError, match=r"environment 1 has the observation_space Box.*3"):
        ProcessExecutor(makes, 2, num_workers=2)
    with pytest.raises(EnvironmentFailedError, match=r"environment 1 .*observation_space is Box"):
        ProcessExecutor(makes, 2, num_workers=1)


@pytest.mark.parametrize("ordered", [False, True])
def test_certain_environments_are_waited_for(pool, ordered):
    slow = functools.partial(SlowEnv, 0.05)
    envs = pool(
        [CountingEnv, slow, CountingEnv, CountingEnv],
        4,
        num_workers=4,
        batch_size=1,
        ordered=ordered,
    )
    envs.async_reset(seed=0)
    assert envs.recv(env_ids=[3, 1, 0])[4]["env_id"].tolist() == [3, 1, 0]
    assert envs.recv()[4]["env_id"].tolist() == [2]
    envs.send(np.array([1, 2]), [1, 3])
    with pytest.raises(
        WrongCallError, match="waits for environment 0, which has no result pending"
    ):
        envs.recv(env_ids=[1, 0])
    with pytest.raises(InvalidValueError, match="names an environment twice"):
        envs.recv(env_ids=[1, 1])
    rewards = envs.recv(env_ids=[1, 3])[1]
    np.testing.assert_array_equal(rewards, [1.1, 2.1])
