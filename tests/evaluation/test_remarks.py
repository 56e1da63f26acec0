from made_runs import make_run, rising

from kiloworlds.evaluation.comparison import RETURN, compare
from kiloworlds.evaluation.remarks import unsaid
from kiloworlds.evaluation.scores import final_values, verdicts


def told_of(runs, metric: str = RETURN, *, has_aggregates=False, episodes=None) -> list[str]:
    comparison = compare(runs, metric)
    judged = verdicts(comparison, final_values(comparison))
    return unsaid(comparison, judged, has_aggregates=has_aggregates, episodes=episodes)


def run(path, env_id: str = "CartPole-v1", **settings):
    return make_run(path, rising(10, 1.0, 2.0), env_id=env_id, **settings)


def test_nothing_is_told_of_two_trainings_on_one_task(tmp_path):
    assert told_of([run(tmp_path / "a"), run(tmp_path / "b", gamma=0.5)]) == []
    assert told_of([run(tmp_path / "c")], "fps") == []  # nothing to judge


def test_why_there_are_no_aggregates(tmp_path):
    longer = run(tmp_path / "b", "Acrobot-v1", total_steps=20_000)
    aggregates, verdict = told_of([run(tmp_path / "a"), longer])
    assert "need two tasks or more that every training has; there is none" in aggregates
    assert "total_steps among it" in aggregates
    first, second = "ppo total_steps=10000", "ppo total_steps=20000"
    assert verdict == f"No task has values of both {first} and {second}: no verdict."


def test_one_shared_task_is_not_enough_for_aggregates(tmp_path):
    runs = [run(tmp_path / "a"), run(tmp_path / "b", "Acrobot-v1"), run(tmp_path / "c", gamma=0.5)]
    (told,) = told_of(runs)
    assert "that every training has; only CartPole-v1 is one" in told
    assert told_of(runs[:2], has_aggregates=True) == []
    (told,) = told_of(runs[:2])
    assert "on which a goal lies above" in told


def test_only_pairs_with_the_first_are_judged(tmp_path):
    runs = [run(tmp_path / str(gamma), gamma=gamma) for gamma in (0.5, 0.6, 0.7)]
    assert told_of(runs) == ["Only pairs with ppo gamma=0.5, the first training, are judged."]


def test_other_metrics_than_returns_have_no_verdict(tmp_path):
    (told,) = told_of([run(tmp_path / "a"), run(tmp_path / "b", gamma=0.5)], "fps")
    assert told == "There is no verdict: nothing says whether more of fps is better."


def test_curves_are_not_of_the_episodes(tmp_path):
    (told,) = told_of([run(tmp_path / "a")], episodes=7)
    assert told == "curves.png shows returns during training, not those of the 7 episodes."
