import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import gymnasium
import jax
import numpy as np
import pytest
import yaml
from training_settings import TINY

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.training.config import TrainConfig, build_config
from kiloworlds.training.evaluate import evaluate
from kiloworlds.training.loops.fused import FusedTraining
from kiloworlds.training.loops.host import HostTraining
from kiloworlds.training.placement import Axis, choose_placement
from kiloworlds.training.run_errors import RunDirectoryError
from kiloworlds.training.storage.metrics_file import read_metrics
from kiloworlds.training.survival.divergence import DivergedError

# Minibatches of 256.
LARGE = {"num_steps": 64, "num_minibatches": 1, "total_steps": 1024}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    return kw.train("ppo", "CartPole-v1", run_dir=path, num_seeds=2, **TINY)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of its own of a run of two seeds, to be read or damaged."""
    return kw.load(shutil.copytree(trained.path, tmp_path / "run"))


def test_a_run_directory_holds_everything(run):
    names = {entry.name for entry in run.path.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.jsonl", "checkpoints"} <= names
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["num_envs"] == 4
    assert config["hidden_sizes"] == [8]
    facts = json.loads((run.path / "environment.json").read_text())
    assert facts["backend"] == "compiled"
    assert facts["packages"]["jax"] == jax.__version__
    assert facts["cores"] >= 1
    assert run.metrics["step"][-1] == 640
    assert run.metrics["rollout/ep_rew_mean"].shape == (len(run.metrics["step"]), 2)


def test_its_config_repeats_the_run(run, tmp_path):
    config = TrainConfig.from_dict(run.config)
    again = kw.train(
        config.algorithm,
        config.env_id,
        run_dir=tmp_path / "again",
        **{k: v for k, v in run.config.items() if k not in ("algorithm", "env_id")},
    )
    np.testing.assert_array_equal(_parameters(run), _parameters(again))


def _parameters(run):
    return np.asarray(run.policy._states.parameters)


def test_load_gives_a_policy_that_acts(run):
    loaded = kw.load(run.path)
    envs = loaded.make_envs(5)
    observations, _ = envs.reset(seed=0)
    actions = loaded.policy.act(observations)
    assert actions.shape == (5,)
    envs.step(actions)
    assert loaded.policy.num_seeds == 2
    loaded.policy.select_seed(1).act(observations, deterministic=False)
    with pytest.raises(InvalidValueError, match="2 seed"):
        loaded.policy.select_seed(2)


def test_evaluate_plays_whole_episodes(run):
    evaluation = run.evaluate(episodes=10)
    assert evaluation.episodes == 10
    assert (evaluation.returns == evaluation.lengths).all()
    low, high = evaluation.interval
    assert low <= evaluation.mean_return <= high
    with pytest.raises(InvalidValueError, match="episodes=0"):
        run.evaluate(episodes=0)


def test_a_directory_with_a_run_is_never_overwritten(run):
    before = (run.path / "metrics.jsonl").read_bytes()
    second = kw.train("ppo", "CartPole-v1", run_dir=run.path, **TINY)
    assert second.path.name == "run_1"
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_an_unwritable_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"file/run.*--run-dir"):
        kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "file" / "run", **TINY)


def test_a_checkpoint_of_another_environment_is_refused(run):
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("CartPole-v1", "Acrobot-v1"))
    with pytest.raises(RunDirectoryError, match="does not fit Acrobot-v1"):
        kw.load(run.path).policy  # noqa: B018


def test_what_is_no_run_is_refused(tmp_path, run):
    with pytest.raises(RunDirectoryError, match="no run directory"):
        kw.load(tmp_path / "nothing")
    with pytest.raises(RunDirectoryError, match=r"not a run directory.*run"):
        kw.load(tmp_path)


def test_metrics_are_read_up_to_a_torn_line(run):
    whole = read_metrics(run.path)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')
    np.testing.assert_array_equal(read_metrics(run.path)["step"], whole["step"])


def test_unknown_names_and_bad_values_are_named(tmp_path):
    with pytest.raises(UnknownNameError, match=r"algorithm 'pppo'.*'ppo'"):
        kw.train("pppo", "CartPole-v1", run_dir=tmp_path)
    with pytest.raises(UnknownNameError, match=r"setting 'learning_rat'.*'learning_rate'"):
        kw.train("ppo", "CartPole-v1", run_dir=tmp_path, learning_rat=1.0)
    with pytest.raises(UnknownNameError, match="CartPole-v1"):
        kw.train("ppo", "CartPole-v7", run_dir=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"gamma": 1.5}, r"gamma=1\.5.*between 0\.0 and 1\.0.*nearest valid value is 1"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"num_envs": 0}, "num_envs=0"),
        ({"total_steps": 0}, "total_steps=0"),
        ({"num_minibatches": 7}, r"num_minibatches=7 does not divide"),
        ({"activation": "tahn"}, "'tanh'"),
        ({"devices": 3}, "devices=3.*JAX sees 2"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_values_out_of_range_are_named(overrides, message, tmp_path):
    with pytest.raises(InvalidValueError, match=message):
        kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "run", **overrides)


def _final_parameters(**overrides):
    config = build_config("ppo", "CartPole-v1", TINY | overrides)
    training = FusedTraining(config, kw.make_environment("CartPole-v1"))
    state = training.init()
    for _ in range(2):
        state, metrics = training.run(state, config.num_updates // 2)
    return np.asarray(training.learner(state).parameters), metrics


def test_a_seed_learns_the_same_alone_or_among_others():
    together, _ = _final_parameters(num_seeds=2, seed=10)
    for index in range(2):
        alone, _ = _final_parameters(seed=10 + index)
        np.testing.assert_allclose(together[index], alone[0], rtol=2e-4, atol=2e-5)


def test_seeds_may_be_spread_over_devices():
    one, _ = _final_parameters(num_seeds=4, devices=1)
    two, _ = _final_parameters(num_seeds=4, devices=2)
    np.testing.assert_allclose(one, two, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_two_networks_may_learn_on_a_device_each(num_seeds):
    one, one_metrics = _final_parameters(num_seeds=num_seeds, devices=1, **LARGE)
    two, two_metrics = _final_parameters(num_seeds=num_seeds, **LARGE)
    assert not np.array_equal(one[:, 0], one[:, 1])
    np.testing.assert_allclose(one, two, rtol=2e-4, atol=2e-5)
    for name, values in one_metrics.train.items():
        np.testing.assert_allclose(values, two_metrics.train[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (1, None)),
        (LARGE, (2, Axis.NETWORKS)),
        (LARGE | {"num_seeds": 3}, (2, Axis.NETWORKS)),
        (LARGE | {"num_seeds": 4}, (2, Axis.SEEDS)),
        ({"num_seeds": 4}, (2, Axis.SEEDS)),
        ({"devices": 1}, (1, None)),
        ({"devices": 2, "num_seeds": 2}, (2, Axis.SEEDS)),
        ({"devices": 2, "num_seeds": 3}, (2, Axis.ENVIRONMENTS)),
    ],
)
def test_what_two_devices_share(settings, expected):
    assert choose_placement(build_config("ppo", "CartPole-v1", TINY | settings)) == expected


@pytest.mark.parametrize(
    ("algorithm", "network", "expected"),
    [
        ("ippo", "mlp", (1, None)),
        ("mappo", "mlp", (1, None)),
        ("ippo", "gru", (1, None)),
        ("mappo", "gru", (2, Axis.NETWORKS)),
    ],
)
def test_several_agents_are_left_to_threads_but_for_two_recurrent_networks(
    algorithm, network, expected
):
    settings = TINY | LARGE | {"network": network}
    config = build_config(algorithm, "mpe/simple_spread_v3", settings)
    assert choose_placement(config) == expected


def test_environments_may_be_spread_over_devices():
    parameters, metrics = _final_parameters(num_seeds=1, devices=2)
    assert parameters.shape[:2] == (1, 2)
    assert np.isfinite(parameters).all()
    assert metrics.episodes.ended.sum() > 0


def test_environments_with_parameters_of_their_own_may_be_spread_over_devices(tmp_path):
    lengths = [0.5, 0.6, 0.7, 0.8]
    settings = TINY | {"num_seeds": 1, "devices": 2, "env_kwargs": {"length": lengths}}
    run = kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "run", **settings)
    arrays = run.load_checkpoint().arrays
    (name,) = (name for name in arrays if name.endswith("parameters/env/length"))
    np.testing.assert_allclose(arrays[name], [lengths])


def test_chunks_do_not_change_the_result():
    config = build_config("ppo", "CartPole-v1", TINY)
    results = []
    for counts in ([10], [1, 2, 3, 4]):
        training = FusedTraining(config, kw.make_environment("CartPole-v1"))
        state = training.init()
        for count in counts:
            state, _ = training.run(state, count)
        results.append(np.asarray(training.learner(state).parameters))
    np.testing.assert_array_equal(*results)


def test_the_host_loop_refuses_other_autoreset_modes_and_several_seeds():
    envs = kw.make("CartPole-v1", num_envs=4, backend="sync", autoreset_mode="next_step")
    with pytest.raises(InvalidValueError, match="same_step"):
        HostTraining(build_config("ppo", "CartPole-v1", TINY), envs)
    with pytest.raises(InvalidValueError, match="num_seeds=2"):
        HostTraining(build_config("ppo", "CartPole-v1", TINY | {"num_seeds": 2}), envs)


def test_training_on_a_real_simulator(tmp_path):
    pytest.importorskip("envpool", exc_type=ImportError)
    run = kw.train("ppo", "LunarLander-v3", run_dir=tmp_path / "run", **TINY)
    assert run.environment["backend"] == "native:envpool"
    assert run.evaluate(episodes=2).episodes == 2


def test_an_interrupted_training_on_a_simulator_ends_after_the_update(tmp_path, monkeypatch):
    (tmp_path / "impatient.py").write_text(
        "import signal\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Env(CartPoleEnv):\n"
        "    taken = 0\n"
        "    def step(self, action):\n"
        "        self.taken += 1\n"
        "        if self.taken == 40:\n"
        "            signal.raise_signal(signal.SIGTERM)\n"
        "        return super().step(action)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = {"num_envs": 1, "num_steps": 32, "total_steps": 10**6, "backend": "sync"}
    run = kw.train("ppo", "impatient:Env", run_dir=tmp_path / "run", **settings)
    assert run.interrupted
    assert run.signal == signal.SIGTERM
    assert run.load_checkpoint().step == 64


def test_ctrl_c_leaves_a_usable_run(tmp_path):
    def interrupt(row):
        if row["step"] >= 128:
            signal.raise_signal(signal.SIGINT)

    run = kw.train(
        "ppo",
        "CartPole-v1",
        run_dir=tmp_path / "run",
        on_metrics=interrupt,
        **(TINY | {"total_steps": 10**7}),
    )
    assert run.interrupted
    assert run.metrics["step"][-1] < 10**6
    assert kw.load(run.path).evaluate(episodes=2).episodes == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_metrics_survive_a_kill(tmp_path):
    """A real kill -9 in the middle of training: every finished row is on disk."""
    script = (
        "import kiloworlds as kw\n"
        f"kw.train('ppo', 'CartPole-v1', run_dir={str(tmp_path / 'run')!r}, num_envs=4,"
        " num_steps=16, total_steps=10**8, hidden_sizes=(8,),"
        " on_metrics=lambda row: print(row['step'], flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    timer = threading.Timer(120, process.kill)
    timer.start()
    seen = [int(process.stdout.readline()) for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    timer.cancel()
    steps = read_metrics(tmp_path / "run")["step"]
    assert list(steps[:5]) == seen


def test_numpy_values_are_settings_too(tmp_path):
    run = kw.train(
        "ppo",
        "CartPole-v1",
        run_dir=tmp_path / "run",
        env_kwargs={"length": np.linspace(0.2, 2.0, 4), "gravity": np.float64(9.0)},
        **(TINY | {"total_steps": np.int64(640), "learning_rate": np.float32(1e-3)}),
    )
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["total_steps"] == 640
    assert config["env_kwargs"]["gravity"] == 9.0
    np.testing.assert_allclose(config["env_kwargs"]["length"], np.linspace(0.2, 2.0, 4))
    assert kw.load(run.path).evaluate(episodes=3).episodes == 3
    assert kw.load(run.path).evaluate(episodes=3, env_kwargs={"length": 0.7}).episodes == 3


@pytest.mark.slow
def test_the_same_training_reports_the_same_rows(tmp_path):
    metrics = [
        kw.train(
            "ppo", "CartPole-v1", run_dir=tmp_path / name, **(TINY | {"total_steps": 16000})
        ).metrics
        for name in "ab"
    ]
    np.testing.assert_array_equal(metrics[0]["step"], np.arange(1, 126) * 128)
    for name in metrics[0].keys() - {"seconds", "fps"}:
        np.testing.assert_array_equal(metrics[0][name], metrics[1][name])


def test_training_needs_an_id():
    with pytest.raises(InvalidValueError, match="needs the id of an environment, not function"):
        kw.train("ppo", lambda: None)


def test_an_environment_of_a_module_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "my_worlds_module.py").write_text(
        "import kiloworlds as kw\n"
        "from kiloworlds.envs.classic.cartpole import CartPole\n"
        "kw.register('MyPole-v0', CartPole, max_episode_steps=20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = kw.train("ppo", "my_worlds_module:MyPole-v0", run_dir=tmp_path / "run", **TINY)
    assert run.config["env_id"] == "my_worlds_module:MyPole-v0"
    assert kw.load(run.path).evaluate(episodes=2).lengths.max() <= 20
    with pytest.raises(UnknownNameError, match="no module 'my_world'"):
        kw.train("ppo", "my_world:MyPole-v0", run_dir=tmp_path / "other")


def test_a_policy_acts_on_one_observation_or_many(run):
    policy = run.policy
    assert policy.act(np.zeros((3, 4))).shape == (3,)
    assert policy.act([0.0, 0.0, 0.0, 0.0]).shape == ()
    with pytest.raises(InvalidValueError, match=r"shape \(3,\); they must be \(4,\)"):
        policy.act(np.zeros(3))


class NarrowObservations(gymnasium.Env):
    """Observes bytes and bits, as games and flags do; fails with NaN rewards if asked to."""

    observation_space = gymnasium.spaces.Dict(
        picture=gymnasium.spaces.Box(0, 255, (3, 3), np.uint8),
        flags=gymnasium.spaces.MultiBinary(2),
    )
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, reward: float = 1.0):
        self.reward = reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return {"picture": np.zeros((3, 3), np.uint8), "flags": np.ones(2, np.int8)}, {}

    def step(self, action):
        self.steps += 1
        observation = {
            "picture": np.full((3, 3), self.steps, np.uint8),
            "flags": np.ones(2, np.int8),
        }
        return observation, self.reward, self.steps == 9, False, {}


@pytest.fixture
def narrow():
    gymnasium.register("NarrowObservations-v0", NarrowObservations)
    yield "NarrowObservations-v0"
    del gymnasium.registry["NarrowObservations-v0"]


def test_observations_of_bytes_and_bits(narrow, tmp_path):
    run = kw.train("ppo", narrow, run_dir=tmp_path / "run", **TINY)
    assert np.isfinite(run.metrics["train/value_loss"]).all()


@pytest.mark.filterwarnings("ignore:.*NaN value")
def test_a_training_that_diverges_says_so_and_saves_no_nonsense(narrow, tmp_path):
    message = (
        r"the reward of environment 0 at step 0 of update 0 \(seed 0\) is not finite\. A lower"
    )
    with pytest.raises(DivergedError, match=message):
        kw.train(
            "ppo",
            narrow,
            run_dir=tmp_path / "run",
            env_kwargs={"reward": float("nan")},
            on_nonfinite="ignore",
            on_divergence="stop",
            **TINY,
        )
    learner = kw.load(tmp_path / "run").load_checkpoint(only="state/learner/").arrays
    assert all(np.isfinite(array).all() for array in learner.values())


def test_an_error_of_the_caller_costs_nothing_that_was_learnt(tmp_path):
    def fail(row):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "run", on_metrics=fail, **TINY)
    assert kw.load(tmp_path / "run").evaluate(episodes=1).episodes == 1


def test_sigterm_ends_training_like_ctrl_c(tmp_path):
    run = kw.train(
        "ppo",
        "CartPole-v1",
        run_dir=tmp_path / "run",
        on_metrics=lambda row: signal.raise_signal(signal.SIGTERM),
        **(TINY | {"total_steps": 10**7}),
    )
    assert run.interrupted
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert run.policy is not None


def test_episodes_that_never_end_are_cut(tmp_path):
    run = kw.train("ppo", "CliffWalking-v1", run_dir=tmp_path / "run", **TINY)
    result = evaluate(run, 5, 0, max_steps=30)
    assert result.episodes == 5
    assert result.lengths.max() <= 30
    assert result.cut == (result.lengths == 30).sum()


def test_settings_of_the_training_are_no_parameters_of_the_environment(tmp_path):
    with pytest.raises(InvalidValueError, match="'num_envs' is no parameter"):
        kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "run", env_kwargs={"num_envs": 3})
