"""Simulators that save their states."""

import os
import signal
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, StateUnavailableError, WrongCallError
from kiloworlds.vector.streams import streams_from_array, streams_to_array


class Walk(gymnasium.Env):
    """Walks by random steps of the action's size; saves itself, unless told not to."""

    def __init__(self):
        self.observation_space = spaces.Dict(
            {"at": spaces.Box(-1e6, 1e6, (2,), np.float64), "step": spaces.Discrete(1000)}
        )
        self.action_space = spaces.Discrete(3)
        self.at, self.steps = np.zeros(2), 0

    def _see(self):
        return {"at": self.at.copy(), "step": self.steps}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.normal(size=2), 0
        return self._see(), {}

    def step(self, action):
        self.at = self.at + (action + 1) * self.np_random.normal(size=2)
        self.steps += 1
        return self._see(), float(self.at.sum()), bool(self.at[0] > 5), False, {}


class SavedWalk(Walk):
    def get_state(self):
        return {"at": self.at, "steps": np.array(self.steps)}

    def set_state(self, state):
        self.at, self.steps = state["at"], int(state["steps"])


class NumberWalk(SavedWalk):
    """The same with an array as observation, which a policy can take."""

    def __init__(self):
        super().__init__()
        self.observation_space = self.observation_space["at"]

    def _see(self):
        return self.at.copy()


def play(envs, steps, seed):
    envs.action_space.seed(seed)
    told = []
    for _ in range(steps):
        told.append(seen(envs.step(envs.action_space.sample())))
    return told


def seen(step):
    observations, rewards, terminated, truncated, infos = step
    if isinstance(observations, dict):
        observations = np.concatenate([np.ravel(part) for part in observations.values()])
    returns = infos["episode"]["r"] if "episode" in infos else None
    return observations, rewards, terminated, truncated, returns, infos.keys()


def assert_same(one, other):
    for mine, theirs in zip(one, other, strict=True):
        for value, wanted in zip(mine[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(value, wanted)
        assert mine[5] == theirs[5]
        np.testing.assert_array_equal(mine[4], theirs[4])


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
@pytest.mark.parametrize(
    "env_id",
    [
        "Hopper-v5",  # in MuJoCo's batch
        "Ant-v5",  # whose contact forces need simulations one by one
        pytest.param("Humanoid-v5", marks=pytest.mark.slow),
        pytest.param("Reacher-v5", marks=pytest.mark.slow),
    ],
)
def test_mujoco_goes_on_exactly_from_a_saved_state(env_id, mode):
    pytest.importorskip("mujoco")
    envs = kw.make(env_id, 3, backend="native", autoreset_mode=mode, max_episode_steps=40)
    envs.reset(seed=0)
    play(envs, 25, seed=1)
    state = envs.get_state()
    kept = {name: array.copy() for name, array in state.items()}
    first = play(envs, 60, seed=2)  # over ends of episodes, whose starts are drawn
    observations = envs.set_state(state)
    np.testing.assert_array_equal(observations, state["observations"])
    assert_same(play(envs, 60, seed=2), first)
    for name, array in kept.items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)
    other = kw.make(env_id, 3, backend="native", autoreset_mode=mode, max_episode_steps=40)
    other.set_state(state)
    assert_same(play(other, 60, seed=2), first)
    forks = kw.make(env_id, 2, backend="native", autoreset_mode=mode, max_episode_steps=40)
    forked = forks.set_state(state, env_ids=[2, 2])
    np.testing.assert_array_equal(forked, observations[[2, 2]])
    one = forks.step(forks.action_space.sample() * 0)
    np.testing.assert_array_equal(one[0][0], one[0][1])


LIVES = {"life_loss": True, "max_pool": False, "gray_scale": False, "clip_rewards": False}


@pytest.mark.parametrize(
    ("backend", "preprocessing"),
    [
        ("sync", "atari"),
        pytest.param("process", LIVES, marks=pytest.mark.slow),
        pytest.param("process", "atari", marks=pytest.mark.slow),
        pytest.param("thread", LIVES, marks=pytest.mark.slow),
    ],
)
def test_atari_games_go_on_exactly_from_a_saved_state(backend, preprocessing):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")

    def make(num_envs=2):
        return kw.make("ALE/Breakout-v5", num_envs, backend=backend, preprocessing=preprocessing)

    with make() as envs, make() as other, make(3) as forks:
        envs.reset(seed=0)
        play(envs, 40, seed=1)
        state = envs.get_state()
        kept = {name: array.copy() for name, array in state.items()}
        first = play(envs, 150, seed=2)
        assert sum(step[2].sum() for step in first)  # games and lives end
        np.testing.assert_array_equal(envs.set_state(state), state["observations"])
        assert_same(play(envs, 150, seed=2), first)
        other.set_state(state)
        assert_same(play(other, 150, seed=2), first)
        for name, array in kept.items():
            np.testing.assert_array_equal(array, state[name], err_msg=name)
        forks.set_state(state, env_ids=[1, 1, 0])
        for _ in range(5):
            observations = forks.step(np.array([2, 2, 2]))[0]
        np.testing.assert_array_equal(observations[0], observations[1])
        assert (observations[0] != observations[2]).any()


@pytest.mark.parametrize("backend", ["sync", "thread", "process"])
def test_environments_of_ones_own_that_save_themselves(backend):
    def make():
        return kw.make(lambda: TimeLimit(SavedWalk(), 30), 3, backend=backend)

    with make() as envs, make() as other:
        envs.reset(seed=0)
        play(envs, 20, seed=1)
        state = envs.get_state()
        assert set(state) >= {"observations/at", "observations/step"}
        first = play(envs, 60, seed=2)
        assert any(step[2].any() for step in first)
        assert any(step[3].any() for step in first)
        observations = envs.set_state(state)
        np.testing.assert_array_equal(observations["at"], state["observations/at"])
        assert_same(play(envs, 60, seed=2), first)
        other.set_state(state)
        assert_same(play(other, 60, seed=2), first)
        for env_ids, message in (
            ([0, 1, 3], r"env_ids holds 3; .* 0 to 2; the nearest valid value is 2"),
            ([0, 1], r"env_ids=\[0, 1\] must be 3 whole numbers"),
            ([0, 1.0, 2], r"env_ids=\[0, 1.0, 2\] must be 3 whole numbers"),
            ([[0], [1, 2], 2], r"must be 3 whole numbers"),
        ):
            with pytest.raises(InvalidValueError, match=message):
                envs.set_state(state, env_ids=env_ids)
        with pytest.raises(
            InvalidValueError, match=r"of shape \(3, 5\) .*; those of these .* \(3, 2\)"
        ):
            envs.set_state(state | {"observations/at": np.zeros((3, 5))})
        with pytest.raises(InvalidValueError, match="this holds no observations"):
            envs.set_state({"returns": np.zeros(3)})


class Secretive(gymnasium.Wrapper):
    """May hold anything."""


@pytest.mark.parametrize("make_env", [lambda: Walk(), lambda: Secretive(SavedWalk())])
@pytest.mark.parametrize("backend", ["sync", "thread"])
def test_one_layer_that_is_not_known_is_enough(make_env, backend):
    with kw.make(make_env, 2, backend=backend) as envs:
        envs.reset()
        assert not envs.saves_state
        with pytest.raises(InvalidValueError, match="cannot save their states"):
            envs.get_state()


def test_a_training_on_a_pool_goes_on_exactly(tmp_path, monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec("SavedWalk-v0", NumberWalk)
    monkeypatch.setitem(gymnasium.registry, "SavedWalk-v0", spec)
    assert_goes_on_exactly(tmp_path, "SavedWalk-v0", {"backend": "process"})


@pytest.mark.slow
def test_a_training_on_an_atari_game_goes_on_exactly(tmp_path):
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    settings = {"backend": "process", "network": "cnn", "preprocessing": "atari", "env_kwargs": {}}
    assert_goes_on_exactly(tmp_path, "ALE/Breakout-v5", settings)


def test_random_streams_come_back_in_the_middle():
    streams = [np.random.default_rng(seed) for seed in (0, 1)]
    streams[1].integers(5, dtype=np.int32)  # half of a number is left over
    copies = streams_from_array(streams_to_array([*streams, None]))
    assert copies[2] is None
    for stream, copy in zip(streams, copies, strict=False):
        for _ in range(3):
            assert stream.integers(1000, dtype=np.int32) == copy.integers(1000, dtype=np.int32)
            assert stream.normal() == copy.normal()


def test_what_cannot_be_saved_says_so():
    pytest.importorskip("mujoco")
    envs = kw.make("Hopper-v5", 2, backend="native")
    assert envs.saves_state
    with pytest.raises(WrongCallError, match="get_state\\(\\) before reset"):
        envs.get_state()
    envs.async_reset(seed=0)
    with pytest.raises(WrongCallError, match="results are pending"):
        envs.get_state()
    envs.recv()
    more = kw.make("Hopper-v5", 3, backend="native")
    with pytest.raises(
        InvalidValueError, match=r"states of 2 environments for num_envs=3; env_ids"
    ):
        more.set_state(envs.get_state())
    with pytest.raises(
        InvalidValueError, match=r"observations of shape \(3, 8\); those of .* have"
    ):
        more.set_state(envs.get_state() | {"observations": np.zeros((2, 8))}, env_ids=[0, 0, 1])
    plain = kw.make("CartPole-v1", 2, backend="sync")
    assert not plain.saves_state
    for call in (plain.get_state, lambda: plain.set_state({})):
        with pytest.raises(InvalidValueError, match="cannot save their states"):
            call()


def test_a_training_on_mujoco_goes_on_exactly(tmp_path):
    pytest.importorskip("mujoco")
    assert_goes_on_exactly(tmp_path, "Hopper-v5", {"normalize_rewards": True})


def assert_goes_on_exactly(tmp_path, env_id, settings):
    """A training that is interrupted and resumed ends like one that was not."""
    settings = {
        "num_envs": 4,
        "num_steps": 16,
        "num_minibatches": 4,
        "total_steps": 640,
        "hidden_sizes": (8,),
        "env_kwargs": {"max_episode_steps": 30},
    } | settings
    whole = kw.train("ppo", env_id, run_dir=tmp_path / "whole", **settings)

    def stop(row):
        if row["step"] >= 256:
            raise KeyboardInterrupt

    path = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        kw.train("ppo", env_id, run_dir=path, on_metrics=stop, **settings)
    run = kw.train("ppo", env_id, run_dir=path, resume=True)
    mine, theirs = run.load_checkpoint(), whole.load_checkpoint()
    assert mine.step == theirs.step == 640
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(mine.arrays[name], array, err_msg=name)
    for name in ("rollout/ep_rew_mean", "train/value_loss"):
        np.testing.assert_array_equal(run.metrics[name], whole.metrics[name])


class Unwilling(NumberWalk):
    """Fails to save from its third time on."""

    times = 0

    def get_state(self):
        self.times += 1
        if self.times > 2:
            raise RuntimeError("the simulator refuses")
        return super().get_state()


def test_a_state_that_cannot_be_saved_costs_no_training(tmp_path, monkeypatch, caplog):
    spec = gymnasium.envs.registration.EnvSpec("Unwilling-v0", Unwilling)
    monkeypatch.setitem(gymnasium.registry, "Unwilling-v0", spec)
    run = kw.train(
        "ppo",
        "Unwilling-v0",
        run_dir=tmp_path / "run",
        num_envs=4,
        num_steps=16,
        num_minibatches=4,
        total_steps=640,
        hidden_sizes=(8,),
        backend="sync",
        checkpoint_updates=1,
        env_kwargs={"max_episode_steps": 30},
    )
    words = "get_state() of Unwilling failed: RuntimeError: the simulator refuses"
    assert words in caplog.text
    checkpoint = run.load_checkpoint()
    assert checkpoint.step == 640
    assert not any("environments" in name for name in checkpoint.arrays)


def test_states_wait_until_a_loss_is_known():
    with kw.make(lambda: NumberWalk(), 4, backend="process", num_workers=2) as envs:
        envs.reset(seed=0)
        play(envs, 3, seed=1)
        os.kill(envs.worker_pids[0], signal.SIGKILL)
        told = ""
        for _ in range(200):  # until the pool has noticed
            try:
                envs.get_state()
            except StateUnavailableError as error:
                told = str(error)
            if "was lost" in told:
                break
            time.sleep(0.05)
        assert "was lost, which the next step tells: states can be saved after it" in told
        *_, infos = envs.step(np.zeros(4, int))
        assert infos["lost"].tolist() == [True, True, False, False]
        state = envs.get_state()
        first = play(envs, 20, seed=2)
        envs.set_state(state)
        assert_same(play(envs, 20, seed=2), first)


@pytest.mark.parametrize("backend", ["sync", "thread"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: None, "arrays by name, a row for each"),
        (lambda state: state | {"returns": [1, 2, 3]}, "arrays by name, a row for each"),
        (lambda state: state | {"returns": np.zeros(2)}, "arrays of different lengths"),
        (lambda state: state | {"more": np.zeros(3)}, "holds more besides"),
        (lambda state: {k: v for k, v in state.items() if k != "sizes"}, "lacks sizes"),
        (lambda state: state | {"lengths": np.zeros(3)}, "got lengths of shape .* float64"),
        (lambda state: state | {"sizes": state["sizes"] * 0}, "no state of environment 0 in row 0"),
        (lambda state: state | {"sizes": state["sizes"] * 1.0}, "no state of environment 0"),
        (
            lambda state: (
                state
                | {
                    "environments": state["environments"]
                    * (np.arange(3) != 2).astype("u1")[:, None]
                }
            ),
            "no state of environment 2 in row 2",
        ),
        (lambda state: state | {"environments": np.zeros(3, "u1")}, "no state of environment 0"),
    ],
)
def test_a_forged_state_changes_nothing(backend, change, message):
    with kw.make(lambda: SavedWalk(), 3, backend=backend) as envs:
        envs.reset(seed=0)
        play(envs, 5, seed=1)
        state = envs.get_state()
        first = play(envs, 5, seed=2)
        envs.set_state(state)
        with pytest.raises(InvalidValueError, match=message):
            envs.set_state(change(state))
        assert_same(play(envs, 5, seed=2), first)
