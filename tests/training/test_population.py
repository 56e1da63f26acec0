import numpy as np
import pytest
from made_runs import make_run

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.config import TrainConfig, build_config

SMALL = {"total_steps": 1024, "num_envs": 4, "num_steps": 16, "num_minibatches": 2}


def parameters(run, index: int) -> np.ndarray:
    """What one member learnt."""
    return np.asarray(run.policy._states.parameters[index])


def test_each_member_learns_what_it_would_learn_alone(tmp_path):
    population = {
        "learning_rate": [1e-2, 1e-3],
        "gamma": [0.9, 0.99],
        "entropy_coefficient": [0, 0.1],
    }
    few = SMALL | {"total_steps": 128}  # rounding, which differs, soon makes other episodes
    many = kw.train(
        "ppo", "CartPole-v1", run_dir=tmp_path / "many", population=population, num_seeds=2, **few
    )
    assert many.policy.num_seeds == 4
    assert not np.allclose(parameters(many, 0), parameters(many, 2), atol=1e-3)
    for entry in (0, 1):
        alone = kw.train(
            "ppo",
            "CartPole-v1",
            run_dir=tmp_path / f"alone-{entry}",
            num_seeds=2,
            **{name: values[entry] for name, values in population.items()},
            **few,
        )
        for seed in (0, 1):
            ours, theirs = parameters(many, 2 * entry + seed), parameters(alone, seed)
            assert ours == pytest.approx(theirs, abs=1e-5)
        rewards = many.metrics["rollout/ep_rew_mean"][:, 2 * entry : 2 * entry + 2]
        assert rewards == pytest.approx(alone.metrics["rollout/ep_rew_mean"], nan_ok=True)


def test_several_agents_make_a_population_too(tmp_path):
    settings = {"num_envs": 4, "num_steps": 8, "num_minibatches": 1, "total_steps": 64}
    rates = {"learning_rate": [1e-2, 1e-4]}
    many = kw.train(
        "ippo", "mpe/simple_spread_v3", run_dir=tmp_path / "m", population=rates, **settings
    )
    alone = kw.train(
        "ippo", "mpe/simple_spread_v3", run_dir=tmp_path / "a", learning_rate=1e-4, **settings
    )
    ours, theirs = (next(iter(run.policy._states.values())).parameters for run in (many, alone))
    assert np.asarray(ours[1]) == pytest.approx(np.asarray(theirs[0]), abs=1e-5)
    assert not np.allclose(ours[0], ours[1], atol=1e-3)


def test_a_population_goes_on_where_it_was(tmp_path):
    settings = {
        **SMALL,
        "population": {"learning_rate": [1e-2, 1e-3]},
        "anneal_learning_rate": False,
    }
    whole = kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "whole", **settings)
    settings["total_steps"] = 512
    kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "half", **settings)
    rest = kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "half", resume=True, total_steps=1024)
    for index in (0, 1):
        assert (parameters(whole, index) == parameters(rest, index)).all()
    with pytest.raises(InvalidValueError, match=r"population: .* in the run, .* given"):
        kw.train(
            "ppo",
            "CartPole-v1",
            run_dir=tmp_path / "half",
            resume=True,
            total_steps=2048,
            population={"learning_rate": [1.0, 2.0]},
        )


def test_members_are_settings_and_seeds():
    config = build_config(
        "ppo", "CartPole-v1", {"population": {"gamma": [0.5, 0.9]}, "num_seeds": 3, "seed": 7}
    )
    assert config.num_members == 6
    assert config.member(4) == ({"gamma": 0.9}, 8)
    assert TrainConfig.from_dict(config.as_dict()) == config
    assert build_config("ppo", "CartPole-v1", {"num_seeds": 3}).member(2) == ({}, 2)


def test_members_have_names():
    population = {"learning_rate": [1e-3, 0.02], "gamma": [0.5, 1]}
    config = build_config(
        "ppo", "CartPole-v1", {"population": population, "num_seeds": 2, "seed": 7}
    )
    assert config.entry_names == ("learning_rate=0.001, gamma=0.5", "learning_rate=0.02, gamma=1")
    assert config.member_names[1:3] == (
        "learning_rate=0.001, gamma=0.5, seed 8",
        "learning_rate=0.02, gamma=1, seed 7",
    )
    assert config.members_in_words == "2 x 2 trainings"
    assert config.varied == {"learning_rate": [1e-3, 1e-3, 0.02, 0.02], "gamma": [0.5, 0.5, 1, 1]}
    seeds = build_config("ppo", "CartPole-v1", {"num_seeds": 2, "seed": 7})
    assert (seeds.entry_names, seeds.member_names) == ((), ("seed 7", "seed 8"))
    assert (seeds.members_in_words, seeds.varied) == ("2 seeds", {})
    assert build_config("ppo", "CartPole-v1", {}).members_in_words == "1 seed"


def test_data_frames_tell_members_apart(tmp_path):
    run = make_run(
        tmp_path / "run",
        [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
        num_seeds=2,
        population={"learning_rate": [1e-3, 0.02]},
    )
    frame = run.metrics.to_pandas()
    assert list(frame.columns[:4]) == ["step", "seconds", "seed", "learning_rate"]
    means = frame.groupby("learning_rate")["rollout/ep_rew_mean"].mean()
    assert means.to_dict() == {0.001: 3.5, 0.02: 5.5}
    assert run.metrics.to_polars()["learning_rate"].to_list() == [1e-3, 1e-3, 0.02, 0.02] * 2


@pytest.mark.parametrize(
    ("population", "words"),
    [
        ({"gamma": 0.5}, "must map settings to lists of values"),
        ({"gamma": []}, "must map settings to lists of values"),
        ([0.5], "must map settings to lists of values"),
        (
            {"num_steps": [8, 16]},
            "cannot hold several values of 'num_steps' of ppo; those .* gamma",
        ),
        ({"gamma": [0.5, 1.5]}, "population: gamma=1.5 must be"),
        ({"gamma": [0.5], "gae_lambda": [0.5, 0.6]}, "here are {'gamma': 1, 'gae_lambda': 2}"),
    ],
)
def test_populations_that_cannot_be_are_refused(population, words):
    with pytest.raises(InvalidValueError, match=words):
        build_config("ppo", "CartPole-v1", {"population": population})


def test_other_places_refuse_a_population(tmp_path):
    with pytest.raises(InvalidValueError, match="several values of 'learning_rate' of vdn"):
        build_config("vdn", "mpe/simple_spread_v3", {"population": {"learning_rate": [1.0]}})
    with pytest.raises(InvalidValueError, match="CartPole-v1 runs outside XLA"):
        kw.train(
            "ppo",
            "CartPole-v1",
            run_dir=tmp_path / "a",
            backend="sync",
            population={"gamma": [0.5]},
            **SMALL,
        )
