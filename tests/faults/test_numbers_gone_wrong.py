"""NaN and infinity while training: found, named, not learnt from, and got over."""

import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from poisoned_envs import Poisoned

import kiloworlds as kw
from kiloworlds.core import registry
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.training.config import TrainConfig
from kiloworlds.training.loops.guard import Fault
from kiloworlds.training.make_training import make_training
from kiloworlds.training.survival.divergence import DivergedError, Divergence

PPO = {"num_envs": 4, "num_steps": 16, "num_minibatches": 4, "hidden_sizes": (8,)}
VDN = {"num_envs": 4, "num_steps": 8, "hidden_sizes": (8,), "replay_size": 16}
UPDATES = 8


class PoisonedTeam(kw.MultiAgentEnvironment):
    """Two agents in one of them."""

    poison: float | jax.Array = 0.0
    in_reward: bool = False

    team_reward: ClassVar[bool] = True

    @property
    def one(self):
        return Poisoned(self.poison, 20.0, self.in_reward)

    @property
    def kinds(self):
        return (kw.AgentKind.numbered("agent", 2, Box(0.0, 100.0, (1,)), Discrete(2)),)

    def reset(self, key):
        state, seen = self.one.reset(key)
        return state, jnp.stack([seen, seen])

    def step(self, key, state, action):
        state, step = self.one.step(key, state, action[0])
        both = jnp.stack([step.observation] * 2)
        return state, step._replace(observation=both, reward=jnp.full(2, step.reward))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    registry.list_envs()  # what comes with the package is there before the copy
    monkeypatch.setattr(registry, "_specs", dict(registry._specs))
    kw.register("Poisoned-v0", Poisoned)
    kw.register("PoisonedTeam-v0", PoisonedTeam)


def train(path, algorithm="ppo", updates=UPDATES, poison=(0, 0, 1, 0), in_reward=False, **settings):
    several = algorithm != "ppo"
    own = VDN if algorithm == "vdn" else PPO
    own = own | settings
    return kw.train(
        algorithm,
        "PoisonedTeam-v0" if several else "Poisoned-v0",
        run_dir=path,
        total_steps=own["num_envs"] * own["num_steps"] * updates,
        env_kwargs={"poison": list(map(float, poison)), "in_reward": in_reward},
        **own,
    )


def events_of(run):
    lines = (run.path / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("algorithm", "in_reward"),
    [
        ("ppo", False),
        ("ippo", True),
        pytest.param("ppo", True, marks=pytest.mark.slow),
        pytest.param("ippo", False, marks=pytest.mark.slow),
    ],
)
def test_what_is_not_finite_is_named_and_not_learnt_from(algorithm, in_reward, tmp_path, capsys):
    run = train(tmp_path / "run", algorithm, in_reward=in_reward, num_seeds=2)
    field = "reward" if in_reward else "observation"
    # The twentieth step of the episode: what it led to is seen at the next step.
    step = 19 - 16 if in_reward else 20 - 16
    said = capsys.readouterr().err
    words = f"the {field} of environment 2 at step {step} of update 1 (seed 1) is not finite"
    assert words in said
    first = events_of(run)[0]
    assert first["event"] == "nonfinite"
    assert [first[key] for key in ("environment", "step", "update", "seed")] == [2, step, 1, 0]
    # It starts over after update 1, so that the next time is in update 3, and so on.
    skipped = run.metrics["train/nonfinite"][:, 0]
    np.testing.assert_array_equal(skipped, [0, 1, 0, 1, 0, 1, 0, 1])
    arrays = run.load_checkpoint().arrays
    assert all(np.isfinite(array).all() for array in arrays.values())
    rows = run.metrics
    assert np.isfinite(rows["train/value_loss"][skipped == 0]).all()


def test_the_update_before_is_what_stays(tmp_path):
    runs = [
        train(tmp_path / str(updates), updates=updates, anneal_learning_rate=False)
        for updates in (1, 2)
    ]
    before, after = (run.load_checkpoint().arrays for run in runs)
    learnt = [name for name in before if name.startswith("state/learner/")]
    for name in learnt:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_a_replay_takes_in_nothing_bad_and_goes_on_learning(tmp_path):
    run = train(tmp_path / "run", "vdn", learning_starts=4, num_seeds=1)
    assert run.metrics["train/nonfinite"].sum() > 0
    arrays = run.load_checkpoint().arrays
    for name, array in arrays.items():
        if "carried" in name or "learner" in name:
            assert np.isfinite(array).all(), name
    lost = next(array for name, array in arrays.items() if name.endswith("/lost"))
    assert lost.any()
    assert np.isfinite(run.metrics["train/td_loss"]).all()


def test_stopping_says_where(tmp_path):
    message = (
        r"the observation of environment 2 at step 4 of update 1 \(seed 0\) is not finite\. A lo"
    )
    with pytest.raises(DivergedError, match=message):
        train(tmp_path / "run", on_divergence="stop")


@pytest.mark.parametrize("ways_back", [0, 3])
def test_what_does_not_get_over_it_is_given_up(ways_back, tmp_path):
    settings = {"on_divergence": "rollback" if ways_back else "skip", "checkpoint_updates": 1}
    message = r"10 updates in a row until update \d+ had numbers that are not finite"
    message += ", 3 times after going back" if ways_back else r"\. A lower"
    path = tmp_path / "run"
    with pytest.raises(DivergedError, match=message):
        train(path, updates=64, learning_rate=1e38, anneal_learning_rate=False, **settings)
    run = kw.load(path)
    rolled = [event for event in events_of(run) if event["event"] == "rolled back"]
    assert len(rolled) == ways_back
    assert all(event["seeds"] == [0] for event in rolled)
    learner = run.load_checkpoint(only="state/learner/").arrays
    assert all(np.isfinite(array).all() for array in learner.values())


def spoil(leaf):
    return leaf * jnp.nan if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf


def test_going_back_takes_another_path(tmp_path):
    run = train(tmp_path / "run", updates=2, poison=(0, 0, 0, 0), num_seeds=2)
    training = make_training(TrainConfig.from_dict(run.config))
    arrays = {
        name.removeprefix("state/"): array
        for name, array in run.load_checkpoint(only="state/").arrays.items()
    }
    good, updates = training.restore(arrays, pytest.fail)
    assert updates == 2
    spoilt = good._replace(learner=jax.tree.map(spoil, good.learner))
    mended = training.roll_back(spoilt, arrays, [1], 1)
    assert mended.updates.tolist() == [2, 2]
    keys = np.asarray(jax.random.key_data(mended.key))
    np.testing.assert_array_equal(keys[0], arrays["key"][0])
    assert not np.array_equal(keys[1], arrays["key"][1])
    environments = np.asarray(jax.random.key_data(mended.environments.keys))
    np.testing.assert_array_equal(environments[0], arrays["environments/keys"][0])
    assert (environments[1] != arrays["environments/keys"][1]).any(axis=-1).all()
    parameters = np.asarray(mended.learner.parameters)
    assert np.isnan(parameters[0]).all()
    np.testing.assert_array_equal(parameters[1], arrays["learner/parameters"][1])
    from_start = training.roll_back(mended, None, [0], 2)
    assert np.isfinite(np.asarray(from_start.learner.parameters)).all()


def test_what_was_counted_is_saved():
    config = TrainConfig.from_dict({"algorithm": "ppo", "env_id": "CartPole-v1", "num_seeds": 2})
    first, second = (Divergence(config, lambda *told, **facts: None) for _ in range(2))
    bad = np.array([[1] * 6, [0] * 6])
    nowhere = np.zeros_like(bad)
    assert first.watch(Fault(bad, nowhere, nowhere), 0) == []
    second.restore(first.save())
    for divergence in (first, second):
        assert divergence.watch(Fault(bad, nowhere, nowhere), 6) == [0]
        assert divergence.number == 1


def test_members_of_a_population_are_named():
    settings = {"algorithm": "ppo", "env_id": "CartPole-v1", "seed": 5}
    config = TrainConfig.from_dict(settings | {"population": {"gamma": [0.9, 0.8]}})
    told = []
    divergence = Divergence(config, lambda words, *event, **facts: told.append(words))
    bad = np.array([[0], [1]])
    divergence.watch(Fault(bad, bad, bad), 0)
    assert "(gamma=0.8, seed 5) is not finite" in told[0]


def test_outside_xla_going_back_is_saved_too(tmp_path):
    config = TrainConfig.from_dict(
        {"algorithm": "ppo", "env_id": "LunarLander-v3", "backend": "sync"} | PPO
    )
    trainings = [make_training(config) for _ in range(2)]
    state = trainings[0].init()
    before = trainings[0].save(state)
    after = trainings[0].save(trainings[0].roll_back(state, None, [0], 1))
    assert (before["key"] != after["key"]).any()
    restored, _ = trainings[1].restore(after, lambda words: None)
    again = trainings[1].save(restored)
    for name, array in after.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    for training in trainings:
        training.close()
