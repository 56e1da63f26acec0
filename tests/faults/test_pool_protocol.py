"""What pool and workers say to each other, where it is much, large, odd, late or cannot be said."""

import functools
import os
import signal
import sys
import time
import warnings
from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import kiloworlds
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.vector.faults import EnvironmentFailedError


class Env(gymnasium.Env):
    """Does what `step(self, action)` says."""

    def __init__(self, step, reset_info=None, observation_space=None, action_space=None):
        self.observation_space = observation_space or spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = action_space or spaces.Discrete(4)
        self._does, self._reset_info = step, reset_info
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.first(), dict(self._reset_info or {})

    def first(self):
        return np.zeros(2, np.float32)

    def step(self, action):
        self.steps += 1
        return self._does(self, action)

    def sleep(self, seconds):
        time.sleep(seconds)
        return "slept"

    def quick(self):
        return "quick"

    @property
    def iterator(self):
        return (i for i in ())


ONES = np.ones(2, np.float32)


def result(reward=1.0, over=False, info=None, observation=ONES):
    return observation, reward, over, False, info or {}


@pytest.fixture
def make(pool):
    """Makes pools of `Env`."""

    def build(step, num_envs=2, *, num_workers=1, reset_info=None, spaces=(None, None), **options):
        make_env = functools.partial(Env, step, reset_info, *spaces)
        return pool(make_env, num_envs, num_workers=num_workers, **options)

    return build


def ends_with_a_word(env, action):
    return result(over=True, info={"word": f"step {env.steps}"})


@pytest.mark.parametrize("num_envs", [64, 100, 200])
def test_many_messages_do_not_overtake_each_other(make, num_envs):
    envs = make(ends_with_a_word, num_envs, reset_info={"word": "reset"}, step_timeout=20)
    envs.reset(seed=0)
    for _ in range(5):
        *_, terminated, _, infos = envs.step(np.zeros(num_envs, int))
        assert terminated.all()
        assert set(infos["word"]) == {"reset"}
        assert set(infos["final_info"]["word"]) == {"step 1"}
    envs.async_reset(seed=0)
    *_, infos = envs.recv()
    assert sorted(infos["env_id"].tolist()) == list(range(num_envs))


def rewards_the_action(env, action):
    return result(float(action[0][0]))


def test_many_messages_to_a_worker(make):
    space = spaces.Sequence(spaces.Box(-1e3, 1e3, (1,), np.float32))
    envs = make(rewards_the_action, 200, spaces=(None, space))
    envs.async_reset(seed=0)
    envs.recv()
    for row in range(200):
        envs.send([(np.array([row], np.float32),)], [row])
    _, rewards, *_, infos = envs.recv()
    np.testing.assert_array_equal(rewards, infos["env_id"])
    assert envs.restarts == 0


def tells_much(env, action):
    return result(info={"log": "x" * 2_000_000})


def test_both_sides_may_say_much_at_once(make):
    space = spaces.Sequence(spaces.Box(-1, 1, (1,), np.float32), stack=True)
    envs = make(tells_much, batch_size=1, spaces=(None, space))
    envs.async_reset(seed=0)
    envs.recv(2)
    large = np.zeros((500_000, 1), np.float32)
    envs.send([large], [0])
    time.sleep(0.3)
    envs.send([large], [1])
    *_, infos = envs.recv(2)
    assert [len(log) for log in infos["log"]] == [2_000_000] * 2


@dataclass
class Score:
    """A class of the test module, which workers cannot import."""

    value: float


Score.__module__ = "__main__"
sys.modules["__main__"].Score = Score  # as if it were the script's own


def gives_a_score(env, action):
    return result(info={"score": Score(1.5)})


def test_infos_of_classes_of_the_script(make):
    envs = make(gives_a_score)
    envs.reset(seed=0)
    *_, infos = envs.step(np.zeros(2, int))
    assert [score.value for score in infos["score"]] == [1.5, 1.5]


def gives_a_generator(env, action):
    return result(info={"fine": 1, "odd": (i for i in range(3))})


def test_an_info_that_cannot_be_sent_is_named(make):
    envs = make(gives_a_generator)
    envs.reset(seed=0)
    with pytest.raises(EnvironmentFailedError, match="the info 'odd' cannot be sent"):
        envs.step(np.zeros(2, int))


def does_nothing(env, action):
    return result()


def test_what_cannot_be_sent_to_workers_is_refused_and_no_harm_done(make):
    envs = make(does_nothing)
    envs.reset(seed=0)
    generator = (i for i in range(3))
    with pytest.raises(InvalidValueError, match="cannot be sent to a worker"):
        envs.set_attr("odd", generator)
    with pytest.raises(InvalidValueError, match="cannot be sent to a worker"):
        envs.reset(options={"odd": generator})
    envs.set_attr("double", lambda x: 2 * x)  # by value
    assert envs.call("double", 4) == (8, 8)
    assert "lost" not in envs.step(np.zeros(2, int))[-1]
    assert envs.restarts == 0


def test_an_attribute_that_cannot_be_sent_back(make):
    envs = make(does_nothing)
    envs.reset(seed=0)
    with pytest.raises(EnvironmentFailedError, match=r"environment 0 failed in call.*pickle"):
        envs.get_attr("iterator")
    assert "lost" not in envs.step(np.zeros(2, int))[-1]


def test_an_answer_that_nobody_waited_for_is_not_taken_for_another(make):
    envs = make(does_nothing)
    envs.reset(seed=0)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            envs.call("sleep", 0.6)
    finally:
        signal.signal(signal.SIGALRM, before)
    time.sleep(1.0)
    assert envs.call("quick") == ("quick", "quick")


def test_a_call_has_a_deadline(make):
    envs = make(does_nothing, num_workers=2, start_timeout=4.0)
    envs.reset(seed=0)
    os.kill(envs.worker_pids[0], signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(WrongCallError, match="worker 0 died in call"):
        envs.call("quick")
    assert time.monotonic() - started < 15
    assert envs.restarts == 1


def test_a_worker_killed_by_a_real_time_signal(make, caplog):
    envs = make(does_nothing)
    envs.reset(seed=0)
    os.kill(envs.worker_pids[0], 40)
    assert envs.step(np.zeros(2, int))[-1]["lost"].all()
    assert "killed by signal 40" in caplog.text


def raises_or_ends(env, action):
    if action == 1:
        raise ValueError("boom")
    if action == 2:
        return result(100.0, over=True, info={"word": "end"})
    return result(over=action == 3)


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
def test_after_an_exception_the_others_are_where_they_were(make, mode):
    envs = make(raises_or_ends, num_workers=2, autoreset_mode=mode)
    envs.reset(seed=0)
    with pytest.raises(EnvironmentFailedError, match="boom"):
        envs.step(np.array([1, 2]))
    if mode == "disabled":
        with pytest.raises(WrongCallError, match="environment 0 has ended"):
            envs.step(np.zeros(2, int))
        envs.reset(options={"reset_mask": np.ones(2, bool)})
    *_, infos = envs.step(np.zeros(2, int))
    assert "word" not in infos
    assert "lost" not in infos
    *_, infos = envs.step(np.array([0, 3]))
    assert "word" not in infos.get("final_info", {})
    expected = 1 if mode == "next_step" else 2  # the first of the two was the reset
    assert infos["episode"]["r"][1] == infos["episode"]["l"][1] == expected


def ends_third(env, action):
    return result(over=env.steps == 3)


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_lengths_of_asynchronous_episodes(make, mode):
    envs = make(ends_third, 1, autoreset_mode=mode)
    envs.async_reset(seed=0)
    envs.recv()
    lengths = []
    while len(lengths) < 3:
        envs.send([0], [0])
        *_, infos = envs.recv()
        if "episode" in infos:
            lengths += infos["episode"]["l"].tolist()
    assert lengths == [3, 3, 3]


def knows_seven(env, action):
    return result(info={"seven": 7})


def test_infos_outlive_their_worker(make):
    envs = make(knows_seven, batch_size=1)
    envs.async_reset(seed=0)
    envs.recv(2)
    envs.send(np.zeros(2, int), [0, 1])
    time.sleep(0.5)
    os.kill(envs.worker_pids[0], signal.SIGKILL)
    time.sleep(0.3)
    _, rewards, *_, infos = envs.recv()
    assert rewards[0] == 1
    assert infos["seven"].tolist() == [7]


def ends_at_once(env, action):
    return result(over=True)


def test_what_has_ended_is_not_sent_on_where_autoreset_is_disabled(make):
    envs = make(ends_at_once, autoreset_mode="disabled")
    envs.async_reset(seed=0)
    envs.recv()
    envs.send([0, 0], [0, 1])
    envs.recv()
    with pytest.raises(WrongCallError, match="environment 1 has ended"):
        envs.send([0], [1])


def test_attributes_stay_when_a_worker_is_replaced(make):
    envs = make(does_nothing)
    envs.reset(seed=0)
    envs.set_attr("level", [5, 6])
    os.kill(envs.worker_pids[0], signal.SIGKILL)
    envs.step(np.zeros(2, int))
    assert envs.get_attr("level") == (5, 6)


def raises_once_set(env, action):
    if action == 1:
        raise ValueError("boom")
    return result()


def test_attributes_stay_when_an_environment_is_built_anew(make):
    envs = make(raises_once_set, on_error="restart")
    envs.reset(seed=0)
    envs.set_attr("level", [5, 6])
    envs.step(np.array([1, 0]))
    assert envs.get_attr("level") == (5, 6)


def test_a_fork_leaves_the_workers_alone(make):
    envs = make(does_nothing)
    envs.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX's, of forks in general
        child = os.fork()
    if child == 0:
        envs._finalizer()  # what the end of an interpreter does; not the rest of pytest's end
        os._exit(0)
    os.waitpid(child, 0)
    assert "lost" not in envs.step(np.zeros(2, int))[-1]


NESTED = spaces.Dict(a=spaces.Sequence(spaces.Discrete(3)), b=spaces.Discrete(2))


def tells_its_action(env, action):
    return {"a": (1,), "b": 0}, 1.0, False, False, {"got": repr(action)}


class NestedEnv(Env):
    def first(self):
        return {"a": (1, 2), "b": 1}


def test_nested_spaces_of_no_fixed_size_have_gymnasiums_form():
    make_env = functools.partial(NestedEnv, tells_its_action, None, NESTED, NESTED)
    batches = []
    for backend, options in (("process", {"num_workers": 1}), ("sync", {})):
        with kiloworlds.make(make_env, 3, backend=backend, **options) as envs:
            first = envs.reset(seed=0)[0]
            assert envs.observation_space.contains(first)
            envs.action_space.seed(0)
            actions = envs.action_space.sample()
            observations, *_, infos = envs.step(actions)
            batches.append((first, observations, infos["got"].tolist()))
    assert repr(batches[0]) == repr(batches[1])


class NamelessSpace(spaces.Space):
    """A space that does not say when two of it are equal."""

    def __init__(self):
        super().__init__((2,), np.float32)

    def sample(self, mask=None, probability=None):
        return np.zeros(2, np.float32)

    def contains(self, x):
        return True

    def __repr__(self):
        return "NamelessSpace()"


NamelessSpace.__module__ = "__main__"
sys.modules["__main__"].NamelessSpace = NamelessSpace


def test_spaces_of_the_script(make):
    envs = make(does_nothing, num_workers=2, spaces=(NamelessSpace(), None))
    observations, _ = envs.reset(seed=0)
    assert len(observations) == 2
    assert len(envs.step(np.zeros(2, int))[0]) == 2
