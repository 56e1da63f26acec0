from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from made_runs import make_run
from PIL import Image

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.evaluation.plot import learning_curve, plot_run, plot_run_figure, run_title

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
    for axes, xs in ((by_steps, [2, 3]), (by_seconds, [20, 30])):  # nothing compiles for 10 s
        curve = axes.lines[-1]
        np.testing.assert_array_equal(curve.get_xdata(), xs)
        np.testing.assert_array_equal(curve.get_ydata(), [2, 4])
        assert list(axes.lines[0].get_ydata()) == [5.0, 5.0]
    assert figure.get_suptitle() == "a title"
    (label,) = by_seconds.texts
    assert label.get_text() == "solved at\n5"
    assert label.get_position()[0] > 0  # beside the panel, off the curve
    assert label.xy == (1, 5.0)


def bands(axes):
    """Lower and upper edge of each band, at each of its steps."""
    ends = []
    for band in axes.collections:
        points = band.get_paths()[0].vertices
        xs = np.unique(points[:, 0])
        ends.append(
            [
                (points[points[:, 0] == x, 1].min(), points[:, 1][points[:, 0] == x].max())
                for x in xs
            ]
        )
    return ends


def test_the_band_holds_what_was_seen_and_says_so():
    returns = np.array([[0.0, 10, 500], [500, 500, 0]])
    figure = learning_curve(np.array([1.0, 2]), np.array([1.0, 2]), returns, title="")
    axes = figure.axes[0]
    assert bands(axes) == [[(0, 500), (0, 500)]]
    assert axes.get_title("left") == "mean and range of 3 seeds"
    alone = learning_curve(np.array([1.0, 2]), np.array([1.0, 2]), returns[:, :1], title="")
    assert alone.axes[0].get_title("left") == ""
    assert bands(alone.axes[0]) == []


def test_a_population_has_a_curve_for_each_entry(tmp_path):
    run = make_run(
        tmp_path / "run",
        [[np.nan, np.nan, 3, 5], [1, 3, 30, 50], [2, 6, 40, 60]],
        num_seeds=2,
        population={"learning_rate": [0.001, 0.02]},
    )
    figure = plot_run_figure(run)
    by_steps = figure.axes[0]
    means = {line.get_label(): list(line.get_ydata()) for line in by_steps.lines}
    assert means["learning_rate=0.001"] == [2, 4]  # which has no return in the first row
    assert means["learning_rate=0.02"] == [4, 40, 50]
    assert bands(by_steps) == [[(1, 3), (2, 6)], [(3, 5), (30, 50), (40, 60)]]
    shown = [text.get_text() for text in by_steps.get_legend().get_texts()]
    assert shown == ["learning_rate=0.001", "learning_rate=0.02"]
    assert by_steps.get_title("left") == "mean and range of 2 seeds each"
    assert figure.get_suptitle() == "PPO on CartPole-v1, 2 values of learning_rate x 2 seeds"


def test_many_curves_have_their_names_below():
    returns = np.arange(12.0).reshape(2, 6)
    figure = learning_curve(
        np.array([1.0, 2]),
        np.array([1.0, 2]),
        returns,
        title="",
        groups={f"gamma={index}": [index] for index in range(6)},
    )
    assert figure.axes[0].get_legend() is None
    assert len(figure.legends[0].get_texts()) == 6
    assert figure.axes[0].get_title("left") == "one seed each"


def test_clock_starts_when_compilation_is_done():
    seconds = np.array([9.0, 9.5, 10.0])
    figure = learning_curve(np.array([1.0, 2, 3]), seconds, np.ones((3, 1)), title="")
    np.testing.assert_allclose(figure.axes[1].lines[-1].get_xdata(), [0.5, 1.0, 1.5])


@pytest.mark.parametrize(
    ("first", "last", "threshold", "is_cut"),
    [
        ([-259.0, -140.0], 8.0, None, True),
        ([-259.0, -140.0], 8.0, 300.0, False),  # the threshold asks for a long axis anyway
        ([20.0, 90.0], 500.0, None, False),
        ([-200.0, -200.0], -110.0, None, True),
        ([-20.0, -15.0], -20.0, None, False),
    ],
)
def test_axis_leaves_out_first_returns_that_squeeze_the_rest(first, last, threshold, is_cut):
    returns = np.array([*first, *[last] * 18])[:, None]
    rows = np.arange(1.0, 21)
    figure = learning_curve(rows, rows, returns, title="", threshold=threshold)
    bottom, top = figure.axes[0].get_ylim()
    notes = [text.get_text() for text in figure.axes[0].texts]
    assert top > last
    assert bottom < returns[5:].min()
    if is_cut:
        assert bottom > first[1]
        assert notes == [f"axis cut: the first returns, down to {first[0]:,.0f}, lie below"]
    else:
        assert bottom <= returns.min()
        assert notes == []


def test_no_line_without_threshold():
    figure = learning_curve(np.ones(1), np.ones(1), np.ones((1, 1)), title="")
    assert len(figure.axes[0].lines) == 1


def test_single_row_is_explained():
    figure = learning_curve(np.ones(1), np.ones(1), np.ones((1, 1)), title="")
    (axes,) = figure.axes  # no clock can be told from one row
    assert any("one row" in text.get_text() for text in axes.texts)


def test_of_several_agents_each_kind_is_drawn_and_what_was_won(tmp_path):
    run = fake_run(tmp_path, [[np.nan] * 3, [1, 2, 3], [4, 5, 6]])
    run.metrics |= {
        "rollout/ep_rew_mean/adversary": np.array([[np.nan] * 3, [10, 10, 10], [20, 21, 22]]),
        "rollout/ep_rew_mean/agent": np.array([[np.nan] * 3, [-9, -9, -9], [-12, -12, -12]]),
        "rollout/win_rate": np.array([[np.nan] * 3, [0.1, 0.2, 0.3], [0.5, 0.5, 0.5]]),
    }
    drawn = {}

    def keep(*arguments, **named):
        drawn["figure"] = learning_curve(*arguments, **named)
        return drawn["figure"]

    with mock.patch("kiloworlds.evaluation.plot.learning_curve", keep):
        plot_run(run)
    by_steps, _, won, _ = drawn["figure"].axes
    assert [text.get_text() for text in by_steps.get_legend().get_texts()] == ["adversary", "agent"]
    means = {line.get_label(): list(line.get_ydata()) for line in by_steps.lines}
    assert means["adversary"] == [10.0, 21.0]
    assert means["agent"] == [-9.0, -12.0]
    np.testing.assert_allclose(won.lines[-1].get_ydata(), [0.2, 0.5])
    assert won.get_ylabel() == "episodes won"


def test_titles():
    assert run_title(CONFIG) == "PPO on CartPole-v1, 3 seeds"
    assert run_title(CONFIG | {"num_seeds": 1}) == "PPO on CartPole-v1, seed 4"
    several = CONFIG | {"population": {"gamma": [0.5, 0.9], "learning_rate": [0.1, 0.2]}}
    assert run_title(several) == (
        "PPO on CartPole-v1, 2 values of gamma with learning_rate x 3 seeds"
    )


def test_nothing_to_draw(tmp_path):
    with pytest.raises(InvalidValueError, match="no episode has ended"):
        plot_run(fake_run(tmp_path, [[np.nan] * 3]))
    empty = SimpleNamespace(path=tmp_path, config=CONFIG, metrics={})
    with pytest.raises(InvalidValueError, match="holds no metrics"):
        plot_run(empty)
