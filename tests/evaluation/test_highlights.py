import dataclasses

import numpy as np
import pytest
from PIL import Image

import kiloworlds
from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.evaluation import highlights
from kiloworlds.evaluation.episode import acting, play_episode, watchable_envs
from kiloworlds.evaluation.highlights import NotRepeatableError, episodes_by_return

TINY = {"total_steps": 512, "num_envs": 4, "num_steps": 64, "hidden_sizes": (8,)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    return kiloworlds.train("ppo", "CartPole-v1", run_dir=path, **TINY)


def test_best_median_and_worst(run, tmp_path):
    picked = episodes_by_return(run, tmp_path, episodes=7, seed=20)
    assert [episode.pick for episode in picked] == ["best", "median", "worst"]
    best, median, worst = (episode.episode_return for episode in picked)
    assert best > worst
    returns = []
    with watchable_envs(run, 1, "disabled") as envs:
        for seed in range(20, 27):
            *_, last = play_episode(envs, acting(run.policy, True), seed=seed)
            returns.append(last.episode_return)
    assert (best, median, worst) == (max(returns), np.median(returns), min(returns))
    for episode in picked:
        assert returns[episode.seed - 20] == episode.episode_return == episode.length
        assert episode.ended
        assert episode.video == tmp_path / f"CartPole-v1-{episode.pick}-seed{episode.seed}.gif"
        with Image.open(episode.video) as gif:
            assert gif.size == (600, 440)
            assert 1 < gif.n_frames <= episode.length + 1


def test_chosen_picks_of_one_episode_land_in_the_run(run):
    picked = episodes_by_return(
        run, episodes=1, picks=("worst", "best"), max_steps=3, deterministic=False
    )
    assert [episode.pick for episode in picked] == ["worst", "best"]
    for episode in picked:
        assert (episode.seed, episode.length, episode.ended) == (10_000, 3, False)
        assert episode.video.parent == run.path / "videos"


def test_several_agents(tmp_path):
    trained = kiloworlds.train(
        "ippo", "mpe/simple_tag_v3", run_dir=tmp_path / "run", network="gru", **TINY
    )
    best, worst = episodes_by_return(trained, episodes=5, picks=("best", "worst"))
    assert best.episode_return > worst.episode_return
    assert best.length == worst.length == 25


def test_episodes_that_do_not_repeat_are_named(run, tmp_path, monkeypatch):
    pushes = iter(range(100))

    def restless(policy, deterministic):
        push = next(pushes) % 2  # the second time to the other side
        return lambda observations, _: np.full(len(observations), push)

    monkeypatch.setattr(highlights, "acting", restless)
    with pytest.raises(NotRepeatableError, match=r"episode \d returned \d+ in \d+ steps, and"):
        episodes_by_return(run, tmp_path, episodes=8)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"episodes": 0}, InvalidValueError, "episodes=0"),
        ({"max_steps": 0}, InvalidValueError, "max_steps=0"),
        ({"picks": ("bets",)}, UnknownNameError, "Did you mean 'best'"),
        ({"format": "avi"}, InvalidValueError, "format='avi' must be 'gif' or 'mp4'"),
    ],
)
def test_wrong_use(run, options, error, words):
    with pytest.raises(error, match=words):
        episodes_by_return(run, **options)


def test_what_is_told_is_plain_data(run, tmp_path):
    (episode,) = episodes_by_return(run, tmp_path, episodes=2, picks=("best",), max_steps=2)
    told = dataclasses.asdict(episode)
    assert {type(value) for name, value in told.items() if name != "video"} <= {
        str,
        int,
        float,
        bool,
    }
