from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.plot import learning_curve, plot_run, run_title

CONFIG = {"algorithm": "ppo", "env_id": "CartPole-v1", "num_seeds": 3, "seed": 4}


def fake_run(path, returns):
    rows = len(returns)
    metrics = {
        "step": np.arange(1, rows + 1) * 1000,
        "seconds": np.arange(1, rows + 1) * 0.5,
        "rollout/ep_rew_mean": np.asarray(returns, float),
    }
    return SimpleNamespace(path=path, config=CONFIG, metrics=metrics)


def test_writes_a_picture_into_the_run(tmp_path):
    path = plot_run(fake_run(tmp_path, [[1, 2, 3], [4, 5, 6]]))
    assert path == tmp_path / "learning_curve.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width >= 1000


def test_draws_the_mean_over_seeds_that_have_episodes():
    returns = np.array([[np.nan, np.nan], [2.0, np.nan], [2.0, 6.0]])
    figure = learning_curve(
        np.array([1.0, 2, 3]), np.array([10.0, 20, 30]), returns, title="a title", threshold=5.0
    )
    by_steps, by_seconds = figure.axes
    for axes, xs in ((by_steps, [2, 3]), (by_seconds, [20, 30])):
        curve = axes.lines[-1]
        np.testing.assert_array_equal(curve.get_xdata(), xs)
        np.testing.assert_array_equal(curve.get_ydata(), [2, 4])
        assert list(axes.lines[0].get_ydata()) == [5.0, 5.0]
    assert figure.get_suptitle() == "a title"
    assert any("solved at 5" in text.get_text() for text in by_steps.texts)


def test_no_line_without_threshold():
    figure = learning_curve(np.ones(1), np.ones(1), np.ones((1, 1)), title="")
    assert len(figure.axes[0].lines) == 1


def test_titles():
    assert run_title(CONFIG) == "PPO on CartPole-v1, 3 seeds"
    assert run_title(CONFIG | {"num_seeds": 1}) == "PPO on CartPole-v1, seed 4"


def test_nothing_to_draw(tmp_path):
    with pytest.raises(InvalidValueError, match="no episode has ended"):
        plot_run(fake_run(tmp_path, [[np.nan] * 3]))
    empty = SimpleNamespace(path=tmp_path, config=CONFIG, metrics={})
    with pytest.raises(InvalidValueError, match="holds no metrics"):
        plot_run(empty)
