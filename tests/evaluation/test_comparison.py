import numpy as np
import pytest
from made_runs import make_run, rising

from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.evaluation.comparison import UnlikeRunsError, compare
from kiloworlds.evaluation.comparison_plots import plot_aggregates, plot_curves, plot_profiles
from kiloworlds.evaluation.scores import (
    Scale,
    Verdict,
    aggregates,
    final_values,
    interquartile_means,
    on_one_scale,
    verdicts,
)
from kiloworlds.evaluation.statistics import Estimate


def test_seeds_of_one_training_are_taken_together(tmp_path):
    runs = [
        make_run(tmp_path / "a", rising(10, 100.0, 200.0)),
        make_run(tmp_path / "b", rising(8, 300.0), seed=7, total_steps=10_000),
    ]
    comparison = compare(runs)
    assert comparison.labels == ["ppo"]
    entry = comparison.entries["ppo", "CartPole-v1"]
    assert entry.seeds == [0, 1, 7]
    assert entry.steps.tolist() == [1000.0 * (row + 1) for row in range(8)]  # as far as both go
    assert entry.values[-1].tolist() == [100.0, 200.0, 300.0]
    assert entry.values[1].tolist() == pytest.approx([40.0, 80.0, 150.0])
    assert any(
        "seeds 0, 1, 7 of 2 runs are taken together" in words for words in comparison.remarks
    )


def test_seconds_are_without_compilation(tmp_path):
    entry = compare([make_run(tmp_path / "a", rising(10, 1.0), rate=500.0)]).of("CartPole-v1")[0]
    assert entry.seconds == pytest.approx(2.0 * np.arange(1, 11))


def test_trainings_are_named_by_what_differs_from_the_preset(tmp_path):
    runs = [
        make_run(tmp_path / "a", rising(4, 1.0), gamma=0.9),
        make_run(tmp_path / "b", rising(4, 1.0), gamma=0.9, learning_rate=0.1),
        make_run(tmp_path / "c", rising(4, 1.0), env_id="Acrobot-v1", gamma=0.9),
        make_run(tmp_path / "d", rising(4, 1.0), env_id="Acrobot-v1", gamma=0.9, seed=3),
    ]
    comparison = compare(runs)
    assert comparison.labels == ["ppo", "ppo learning_rate=0.1"]  # all have gamma=0.9
    assert comparison.env_ids == ["CartPole-v1", "Acrobot-v1"]
    assert comparison.shared == ["CartPole-v1"]
    assert [entry.label for entry in comparison.of("Acrobot-v1")] == ["ppo"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env_id": "CartPole-v0"}, "CartPole-v1 and CartPole-v0 are different versions"),
        ({"env_kwargs": {"length": 0.7}}, r"parameters of the environment: 'none' and \{'length'"),
        ({"facts": {"kiloworlds": "0.0.9"}}, "differ in versions of kiloworlds: .* and '0.0.9'"),
        ({"facts": {"packages": {"gymnasium": "0.1"}}}, "differ in versions of Gymnasium"),
    ],
)
def test_unlike_runs_are_refused_with_the_reason(tmp_path, changes, words):
    runs = [
        make_run(tmp_path / "a", rising(4, 1.0)),
        make_run(tmp_path / "b", rising(4, 1.0), seed=9, **changes),
    ]
    with pytest.raises(UnlikeRunsError, match=words):
        compare(runs)
    comparison = compare(runs, allow_differences=True)
    assert sum(len(entry.seeds) for entry in comparison.entries.values()) == 2
    assert words.split(":")[0].split(" are")[0] in comparison.remarks[0].replace("\\", "")


def test_bad_input_is_refused_in_words(tmp_path):
    run = make_run(tmp_path / "a", rising(4, 1.0, 2.0))
    with pytest.raises(InvalidValueError, match="there is nothing to compare"):
        compare([])
    with pytest.raises(InvalidValueError, match=r"repeats seeds \[1\] of ppo"):
        compare([run, make_run(tmp_path / "b", rising(4, 1.0), seed=1)])
    with pytest.raises(UnknownNameError, match="Did you mean 'rollout/ep_rew_mean'"):
        compare([run], "rollout/ep_rew")
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    with pytest.raises(InvalidValueError, match="holds no metrics: nothing was trained yet"):
        compare([run])


def test_equal_entries_of_a_population_are_one(tmp_path):
    population = {"gamma": [0.9, 0.90, 0.5]}
    run = make_run(tmp_path / "a", rising(4, 1.0, 1.0, 3.0), num_seeds=1, population=population)
    comparison = compare([run])
    assert comparison.labels == ["ppo gamma=0.9", "ppo gamma=0.5"]
    assert comparison.entries["ppo gamma=0.5", "CartPole-v1"].final.tolist() == [3.0]
    assert (
        "1 of the 3 entries of its population repeat others, and are left out"
        in comparison.remarks[0]
    )


def test_runs_of_one_training_that_end_at_different_steps_are_told(tmp_path):
    settings = {"total_steps": 10_000}
    runs = [
        make_run(tmp_path / "a", rising(10, 1.0), **settings),
        make_run(tmp_path / "b", rising(4, 1.0), seed=1, **settings),
    ]
    assert any(
        "these runs end at steps 4,000, 10,000; all are taken as far as the shortest went" in words
        for words in compare(runs).remarks
    )


def test_numbers_in_names_are_short_where_that_tells_them_apart(tmp_path):
    rates = [0.0028384057746409694, 0.0028384057746409695e-1, 0.00028381]
    runs = [
        make_run(tmp_path / str(at), rising(4, 1.0), learning_rate=rate)
        for at, rate in enumerate(rates)
    ]
    assert compare(runs).labels == [
        "ppo learning_rate=0.002838",
        f"ppo learning_rate={rates[1]}",
        "ppo learning_rate=0.00028381",
    ]


def test_what_is_no_seeds_own_counts_as_one(tmp_path):
    comparison = compare([make_run(tmp_path / "a", rising(4, 1.0, 2.0))], "fps")
    assert final_values(comparison)["ppo", "CartPole-v1"].tolist() == [1000.0]
    assert comparison.remarks == [
        "fps of ppo on CartPole-v1 is one number of all seeds of a run, and counts as one seed."
    ]


def test_rows_that_are_not_finite_are_left_out_and_told(tmp_path):
    returns = rising(10, 10.0, 20.0)
    returns[0] = np.nan  # no episode had ended yet
    returns[-1, 1] = np.nan
    comparison = compare([make_run(tmp_path / "a", returns, seed=4)])
    assert comparison.entries["ppo", "CartPole-v1"].final[0] == 10.0
    assert "not finite in some rows of seed 5" in comparison.remarks[0]
    finals = final_values(comparison)
    assert finals["ppo", "CartPole-v1"].tolist() == [10.0]
    assert any("seeds 5 end without a value" in words for words in comparison.remarks)
    assert any("No interval is given for one seed" in words for words in comparison.remarks)
    assert interquartile_means(finals)["ppo", "CartPole-v1"] == (10.0, None, None)


def test_the_end_is_the_last_tenth_of_the_rows(tmp_path):
    returns = np.arange(40.0)[:, None]
    entry = compare([make_run(tmp_path / "a", returns)]).of("CartPole-v1")[0]
    assert entry.final.tolist() == [np.mean([36, 37, 38, 39])]
    assert entry.reaches(10.0).tolist() == [11_000.0]
    assert entry.reaches(10.0, "seconds").tolist() == [pytest.approx(11.0)]


def test_uneven_trainings_are_remarked_upon(tmp_path):
    runs = [
        make_run(tmp_path / "a", rising(10, 1.0)),
        make_run(tmp_path / "b", rising(20, 1.0, 2.0), gamma=0.5),
    ]
    remarks = compare(runs).remarks
    assert any(
        "different numbers of steps: ppo total_steps=10000 10,000" in words for words in remarks
    )
    assert any("other numbers of seeds share the machine" in words for words in remarks)


def comparison_of_two(folder, seeds: int = 6):
    random = np.random.default_rng(0)
    runs = []
    for env_id, goal in (("CartPole-v1", 500.0), ("Acrobot-v1", -80.0)):
        for name, settings, share in (("good", {}, 1.0), ("bad", {"gamma": 0.5}, 0.4)):
            ends = goal * (share if goal > 0 else 1 / share) + random.normal(0, 3, seeds)
            path = folder / f"{name}-{env_id}"
            runs.append(make_run(path, rising(20, *ends), env_id=env_id, **settings))
    return compare(runs)


def test_the_better_training_is_told_apart(tmp_path):
    comparison = comparison_of_two(tmp_path)
    (verdict,) = verdicts(comparison, final_values(comparison))
    assert (verdict.first, verdict.second, verdict.words) == ("ppo", "ppo gamma=0.5", "better")
    assert verdict.probability.value == 1.0
    assert verdict.env_ids == ("CartPole-v1", "Acrobot-v1")


def test_a_verdict_is_told_of_the_likelier_training():
    worse = Verdict("a", "b", Estimate(0.25, 0.125, 0.375), 5, ("CartPole-v1",))
    assert worse.words == "worse"
    turned = worse.likelier_first
    assert (turned.first, turned.second, turned.words) == ("b", "a", "better")
    assert turned.probability == Estimate(0.75, 0.625, 0.875)
    assert turned.likelier_first == turned
    one_seed = Verdict("a", "b", Estimate(0.0, None, None), 1, ("CartPole-v1",))
    assert one_seed.likelier_first.probability == Estimate(1.0, None, None)


def test_few_seeds_carry_no_verdict(tmp_path):
    comparison = comparison_of_two(tmp_path, seeds=3)
    (verdict,) = verdicts(comparison, final_values(comparison))
    assert verdict.words == "no verdict on 3 seeds; 5 carry one"


def test_tasks_are_averaged_on_one_scale(tmp_path):
    comparison = comparison_of_two(tmp_path)
    finals = final_values(comparison)
    scales = {
        "CartPole-v1": Scale(20.0, 475.0, "the goal"),
        "Acrobot-v1": Scale(-500.0, -100.0, "the goal"),
    }
    scores = on_one_scale(comparison, finals, scales)
    wanted = (finals["ppo", "Acrobot-v1"] + 500) / 400
    assert scores["ppo"][1] == pytest.approx(wanted)
    told = aggregates(scores)
    assert told["ppo"].mean.value > 1 > told["ppo gamma=0.5"].mean.value
    assert aggregates({}) == {}


def test_pictures_show_every_training_on_every_task(tmp_path):
    comparison = comparison_of_two(tmp_path)
    figure = plot_curves(comparison)
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == comparison.env_ids
    drawn = [line for line in figure.axes[2].lines if len(line.get_xdata()) > 2]
    assert len(drawn) == 2
    assert drawn[0].get_ydata()[-1] == pytest.approx(-80.0, abs=3)
    assert drawn[0].get_linestyle() != drawn[1].get_linestyle()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "ppo  (6 seeds)",
        "ppo gamma=0.5  (6 seeds)",
    ]
    finals = final_values(comparison)
    scales = {env_id: Scale(-600.0, 500.0, "") for env_id in comparison.env_ids}
    scores = on_one_scale(comparison, finals, scales)
    bars = plot_aggregates(aggregates(scores), 2)
    assert len(bars.axes) == 4
    assert bars.axes[0].lines[0].get_solid_capstyle() == "butt"  # as long as the interval
    assert "bars are 95% intervals" in bars.get_suptitle()
    bars.savefig(tmp_path / "bars.png")
    for axes in bars.axes:
        title = axes.title.get_window_extent()
        assert 0 <= title.x0 <= title.x1 <= bars.bbox.width  # nothing is cut off
    assert [label.get_text() for label in bars.axes[0].get_yticklabels()] == list(scores)
    profiles = plot_profiles(scores)
    assert profiles.axes[0].lines[0].get_ydata()[0] == 1.0
    assert "bands are 95% intervals" in profiles.get_suptitle()
    for each in (figure, bars, profiles):
        each.savefig(tmp_path / "picture.png")


def test_a_population_is_as_many_trainings(tmp_path):
    population = {"gamma": [0.9, 0.98], "learning_rate": [0.01, 0.1]}
    returns = rising(10, 1.0, 2.0, 3.0, 4.0)
    run = make_run(tmp_path / "a", returns, num_seeds=2, population=population)
    comparison = compare([run])
    labels = ["ppo gamma=0.9 learning_rate=0.01", "ppo learning_rate=0.1"]  # 0.98 is the preset's
    assert [sorted(label.split()) for label in comparison.labels] == [
        sorted(label.split()) for label in labels
    ]
    entry = comparison.entries[comparison.labels[1], "CartPole-v1"]
    assert entry.final.tolist() == [3.0, 4.0]
    assert entry.seeds == [0, 1]
    assert entry.columns == [range(2, 4)]
    assert entry.side_by_side == 4


def test_metrics_are_read_up_to_the_damage(tmp_path):
    run = make_run(tmp_path / "a", rising(10, 1.0, 2.0))
    file = tmp_path / "a" / "metrics.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:6], '{"step": oops', *lines[7:]]) + "\n")
    comparison = compare([run])
    assert len(comparison.of("CartPole-v1")[0].steps) == 6
    assert any("line 7" in words for words in comparison.remarks)
