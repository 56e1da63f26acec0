import functools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pool_envs import CountingEnv, SlowEnv
from training_settings import TINY

import kiloworlds as kw
from kiloworlds.algorithms.ppo import PPO, Rollout
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import from_gymnasium
from kiloworlds.training.config import build_config
from kiloworlds.training.loops.host import HostTraining
from kiloworlds.vector.faults import EnvironmentFailedError
from kiloworlds.vector.process.pool import ProcessExecutor
from kiloworlds.vector.sync import SyncExecutor
from kiloworlds.vector.thread import ThreadExecutor


def config(**settings):
    return build_config("ppo", "counting", TINY | settings)


@pytest.fixture
def training():
    """Makes trainings and closes them."""
    made = []

    def make(envs, **settings):
        made.append(HostTraining(config(**settings), envs))
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert "actors" not in {thread.name for thread in threading.enumerate()}


def parameters(training, updates):
    state = training.init()
    for _ in range(updates):
        state, _ = training.run(state, 1)
    return np.asarray(state.learner.parameters)


def by_hand(envs, settings, updates):
    """PPO on `envs` as one would write it without actors: step, store, learn."""
    config_ = config(**settings)
    algorithm = PPO(
        config_.settings,
        from_gymnasium(envs.single_observation_space),
        from_gymnasium(envs.single_action_space),
    )
    learner_key, key = jax.random.split(fast_key(config_.seed))
    learner, return_so_far = algorithm.init(learner_key), jnp.zeros(config_.num_envs)
    observations, _ = envs.reset(seed=config_.seed)
    act, log_prob_of = jax.jit(algorithm.act), jax.jit(algorithm.log_prob)
    for update in range(updates):
        act_key, learn_key = jax.random.split(jax.random.fold_in(key, update))
        policy, rows = algorithm.policy(learner), []
        for step_key in jax.random.split(act_key, config_.settings.num_steps):
            raw, outputs = act(policy, step_key, observations)
            log_prob = log_prob_of(policy, outputs, raw)
            actions = np.asarray(algorithm.head.to_environment(raw))
            following, rewards, terminated, truncated, infos = envs.step(actions)
            led_to, finished = following.copy(), terminated | truncated
            for index in np.nonzero(finished)[0]:
                led_to[index] = infos["final_obs"][index]
            rows.append(
                Rollout(
                    observations, raw, log_prob, np.float32(rewards), terminated, finished, led_to,
                    np.ones_like(finished),
                )
            )  # fmt: skip
            observations = following
        rollout = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        rate = config_.settings.learning_rate * (1.0 - update / config_.num_updates)
        learner, return_so_far, _ = jax.jit(algorithm.update)(
            learner, rollout, return_so_far, learn_key, jnp.float32(rate)
        )
    return np.asarray(learner.parameters)


def test_without_staleness_it_is_the_synchronous_loop_bit_for_bit(training):
    make = functools.partial(CountingEnv, length=7, truncates=True)
    expected = by_hand(SyncExecutor(make, 4), {"seed": 5}, updates=4)
    for envs in (SyncExecutor(make, 4), ThreadExecutor(make, 4), ProcessExecutor(make, 4)):
        ours = parameters(training(envs, seed=5), updates=4)
        np.testing.assert_array_equal(ours, expected)


def check_columns(rollout, starts):
    """No step of any environment is skipped or repeated; `starts` is where the last rollout ended."""
    seen, led_to = rollout.observation[..., 1], rollout.next_observation[..., 1]
    np.testing.assert_array_equal(led_to, seen + 1)
    expected = np.where(rollout.finished, 0, led_to)
    np.testing.assert_array_equal(seen[1:], expected[:-1])
    if starts is not None:
        np.testing.assert_array_equal(seen[0], starts)
    return expected[-1]


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3])
@pytest.mark.parametrize("max_staleness", [0, 1, pytest.param(3, marks=pytest.mark.slow)])
def test_every_environment_s_steps_follow_each_other(training, batch_size, max_staleness):
    envs = ProcessExecutor(
        functools.partial(CountingEnv, length=5), 4, num_workers=2, batch_size=batch_size
    )
    loop = training(envs, max_staleness=max_staleness)
    state, starts = loop.init(), None
    for update in range(6):
        collected = loop._actors.rollout(update)
        assert collected.rollout.observation.shape == (16, 4, 2)
        assert collected.rollout.valid.all()
        starts = check_columns(collected.rollout, starts)
        assert 0 <= collected.staleness.min() <= collected.staleness.max() <= max_staleness
        assert collected.episodes.ended == collected.rollout.finished.sum()
        loop._actors.publish(update + 1, loop.algorithm.policy(state.learner))


def test_environments_go_on_while_the_learner_learns(training):
    loop = training(SyncExecutor(functools.partial(SlowEnv, 0.001), 4), max_staleness=1)
    state = loop.init()
    staleness = []
    for _ in range(4):
        state, metrics = loop.run(state, 1)
        staleness.append(float(metrics.train["staleness"][0, 0]))
    assert staleness == [0, 1, 1, 1]


def test_with_a_staleness_of_one_a_run_repeats_exactly(training):
    results = [
        parameters(training(SyncExecutor(CountingEnv, 4), max_staleness=1), updates=5)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*results)
    synchronous = parameters(training(SyncExecutor(CountingEnv, 4)), updates=5)
    assert (results[0] != synchronous).any()


@pytest.mark.parametrize("max_staleness", [1, 2])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_actors_stop_when_the_learner_does(training, max_staleness, batch_size):
    lives = [functools.partial(CountingEnv, length=10_000) for _ in range(4)]
    envs = ProcessExecutor(lives, 4, num_workers=2, batch_size=batch_size)
    loop = training(envs, max_staleness=max_staleness, total_steps=6400)
    loop.init()
    last = loop._actors.rollout(max_staleness)  # the learner waits, but does not learn
    taken = (max_staleness + 1) * 16
    np.testing.assert_array_equal(last.rollout.next_observation[-1, :, 1], taken)
    time.sleep(0.5)
    assert not loop._actors._rollouts[max_staleness + 1].done()


def test_what_ends_an_actor_reaches_the_learner(training):
    class BrokenEnv(CountingEnv):
        def step(self, action):
            if self.steps == 3:
                raise ValueError("broken")
            return super().step(action)

    envs = ThreadExecutor(BrokenEnv, 4, num_workers=2)
    loop = training(envs, max_staleness=1)
    state = loop.init()
    with pytest.raises(EnvironmentFailedError, match="broken"):
        loop.run(state, 1)


def test_metric_rows_say_how_stale_and_who_waits(tmp_path):
    run = kw.train(
        "ppo",
        "LunarLander-v3",
        run_dir=tmp_path,
        backend="process",
        max_staleness=1,
        batch_size=2,
        **TINY,
    )
    rows = run.metrics
    assert len(rows["step"]) == 10
    assert (rows["train/staleness"] <= rows["train/staleness_max"]).all()
    assert set(rows["train/staleness_max"][:, 0]) <= {0, 1}
    assert (rows["train/staleness"] > 0).any()
    for name in ("learner_waits", "environments_wait", "network_acts", "network_learns"):
        assert ((rows[f"time/{name}"] >= 0) & (rows[f"time/{name}"] <= 1)).all()
    assert (rows["environments/share_slowest"] >= 0).all()


def test_a_batch_larger_than_the_environments_is_refused():
    with pytest.raises(InvalidValueError, match=r"batch_size=5 is more than num_envs=4"):
        config(batch_size=5)


@pytest.mark.parametrize(
    "settings", [{"max_staleness": 1}, {"batch_size": 2}, {"preprocessing": "atari"}]
)
def test_what_compiled_environments_do_not_know_is_refused(settings, tmp_path):
    with pytest.raises(
        InvalidValueError, match=f"{next(iter(settings))}=.*CartPole-v1 is compiled"
    ):
        kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "run", **TINY, **settings)


def test_steps_taken_while_the_program_compiled_give_no_speed(tmp_path):
    run = kw.train(
        "ppo", "CartPole-v1", backend="sync", run_dir=tmp_path / "run", max_staleness=1,
        **TINY | {"total_steps": 5 * TINY["num_envs"] * TINY["num_steps"]},
    )  # fmt: skip
    assert np.isnan(run.metrics["fps"][:2]).all()
    assert (run.metrics["fps"][2:] > 0).all()
