import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

import kiloworlds as kw
from kiloworlds.cli.main import main
from kiloworlds.sweep import store
from kiloworlds.sweep.outcome import Outcome, costs_differ, pareto_front
from kiloworlds.sweep.plots import plot_sweep
from kiloworlds.sweep.search import Sweep, SweepFailedError
from kiloworlds.sweep.spec import read_spec
from kiloworlds.sweep.store import SweepStoreError
from kiloworlds.training.train import train_config

SMALL = {"total_steps": 512, "num_envs": 8, "num_steps": 16, "num_minibatches": 2}
GIVEN = {
    "algorithm": "ppo",
    "env": "CartPole-v1",
    "settings": SMALL,
    "trials": 5,
    "seeds": 2,
    "population": 3,
    "search": {"learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
}


def test_trials_are_trained_side_by_side(tmp_path):
    seen = []
    outcomes = Sweep(tmp_path, read_spec(GIVEN)).run(on_progress=seen.append)
    assert [progress.finished for progress in seen] == [3, 5]
    assert [outcome.value for outcome in outcomes] == sorted(
        (outcome.value for outcome in outcomes), reverse=True
    )
    assert sorted(os.listdir(tmp_path / "runs")) == ["0000-0002", "0003-0004"]
    for outcome in outcomes:
        run = kw.load(outcome.run)
        entry, remainder = divmod(outcome.first, 2)
        assert remainder == 0
        rate = run.config["population"]["learning_rate"][entry]
        assert rate == pytest.approx(outcome.values["learning_rate"])
        ends = run.metrics["rollout/ep_rew_mean"][-1, outcome.first : outcome.first + 2]
        assert outcome.returns == pytest.approx(ends)
        assert outcome.value == pytest.approx(ends.mean())


def test_settings_that_need_programs_of_their_own_get_them(tmp_path):
    search = {"gamma": [0.9, 0.99], "hidden_sizes": [[8], [16, 16]]}
    given = GIVEN | {
        "sampler": "grid",
        "search": search,
        "trials": None,
        "seeds": 1,
        "population": 4,
    }
    outcomes = Sweep(tmp_path, read_spec(given)).run()
    tried = {json.dumps(outcome.values, sort_keys=True) for outcome in outcomes}
    assert len(tried) == 4
    for outcome in outcomes:
        config = kw.load(outcome.run).config
        assert config["hidden_sizes"] == outcome.values["hidden_sizes"]
        assert sorted(config["population"]["gamma"]) == [0.9, 0.99]


def test_the_same_command_goes_on_and_ends_at_once_where_all_is_done(tmp_path):
    first = Sweep(tmp_path, read_spec(GIVEN | {"trials": 3})).run()
    more = Sweep(tmp_path, read_spec(GIVEN | {"trials": 4})).run()
    assert {outcome.number for outcome in more} == {0, 1, 2, 3}
    assert {outcome.number: outcome.value for outcome in first}.items() <= {
        outcome.number: outcome.value for outcome in more
    }.items()
    assert Sweep(tmp_path, read_spec(GIVEN | {"trials": 4})).run() == more


def test_another_sweep_is_not_mixed_in(tmp_path):
    Sweep(tmp_path, read_spec(GIVEN))
    with pytest.raises(SweepStoreError, match=r"holds another sweep .*seeds: 2 there, 3 given"):
        Sweep(tmp_path, read_spec(GIVEN | {"seeds": 3}))


def test_a_torn_last_line_of_a_study_costs_nothing_but_itself(tmp_path):
    first = Sweep(tmp_path, read_spec(GIVEN | {"trials": 1})).run()
    file = tmp_path / "study.journal"
    file.write_bytes(file.read_bytes() + b'{"op_code": 5, "wor')
    assert Sweep(tmp_path, read_spec(GIVEN | {"trials": 1})).run() == first
    assert file.read_bytes().endswith(b"\n")


def test_a_large_grid_starts_at_once_and_may_grow(tmp_path):
    rates = [round(1e-4 * (number + 1), 6) for number in range(40)]
    search = {"learning_rate": rates, "gamma": [0.9 + 0.001 * number for number in range(40)]}
    given = GIVEN | {"sampler": "grid", "search": search, "trials": 2, "seeds": 1}
    assert len(Sweep(tmp_path, read_spec(given)).trials.study.get_trials()) == 2
    assert len(Sweep(tmp_path, read_spec(given | {"trials": 3})).trials.study.get_trials()) == 3


def test_outside_xla_each_trial_has_a_program_of_its_own(tmp_path):
    given = GIVEN | {
        "settings": SMALL | {"total_steps": 128, "backend": "sync"},
        "search": {"learning_rate": [0.001, 0.01]},
        "sampler": "grid",
        "trials": None,
        "seeds": 1,
    }
    outcomes = Sweep(tmp_path, read_spec(given)).run()
    assert sorted(outcome.values["learning_rate"] for outcome in outcomes) == [0.001, 0.01]
    assert len({outcome.run for outcome in outcomes}) == 2


def test_a_signal_at_the_very_end_of_a_training_ends_the_sweep(tmp_path):
    def interrupt(progress):
        raise AssertionError("the sweep went on")

    sweep = Sweep(tmp_path, read_spec(GIVEN))
    tell = sweep._tell

    def told(*what):
        tell(*what)
        assert len(sweep.outcomes()) == 3

    sweep._tell = told
    last = SMALL["total_steps"]

    def at_the_end(row, total):
        if row["step"] >= last:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kiloworlds.sweep.search.Stopping.hear", lambda self, *of: at_the_end(*of))
        with pytest.raises(KeyboardInterrupt):
            sweep.run(on_progress=interrupt)
    assert len(sweep.outcomes()) == 3


def test_a_damaged_study_is_refused(tmp_path):
    Sweep(tmp_path, read_spec(GIVEN | {"trials": 1})).run()
    file = tmp_path / "study.journal"
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([lines[0], b"{garbage", *lines[2:]]))
    with pytest.raises(SweepStoreError, match=r"study.journal' is damaged .* Move it away"):
        Sweep(tmp_path, read_spec(GIVEN))


@pytest.mark.parametrize("line", ["[1, 2]", "5", "null", '"word"', "{}", '{"op_code": 99}'])
def test_lines_that_are_none_of_a_study_are_refused(tmp_path, line):
    Sweep(tmp_path, read_spec(GIVEN | {"trials": 1}))
    with (tmp_path / "study.journal").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(SweepStoreError, match=r"study.journal' is damaged .* Move it away"):
        Sweep(tmp_path, read_spec(GIVEN))


def test_a_trial_that_lost_what_was_told_of_it_is_refused(tmp_path):
    spec = read_spec(GIVEN | {"trials": 1, "seeds": 1})
    Sweep(tmp_path, spec).run()
    file = tmp_path / "study.journal"
    lines = file.read_text().splitlines(keepends=True)
    for fact in ("returns", "steps", "learning_rate"):
        file.write_text("".join(line for line in lines if f'"{fact}"' not in line))
        with pytest.raises(SweepStoreError, match=rf"\(trial 0 lacks {fact}\)"):
            Sweep(tmp_path, spec).run()


@pytest.mark.parametrize("text", ["", "- a\n", "5", "a: [1"])
def test_a_damaged_specification_in_the_folder_is_named(tmp_path, text):
    Sweep(tmp_path, read_spec(GIVEN))
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(SweepStoreError, match=r"sweep.yaml' is damaged: [^\n]*$"):
        Sweep(tmp_path, read_spec(GIVEN))


def test_a_run_that_had_to_go_elsewhere_is_found_there(tmp_path, monkeypatch):
    def rescued(config, run_dir, **listeners):
        return train_config(config, run_dir=tmp_path / "elsewhere", **listeners)

    monkeypatch.setattr("kiloworlds.sweep.search.train_config", rescued)
    spec = read_spec(GIVEN | {"trials": 1, "seeds": 1})
    (outcome,) = Sweep(tmp_path / "sweep", spec).run()
    assert outcome.run == tmp_path / "elsewhere"
    assert outcome.returns == kw.load(outcome.run).metrics["rollout/ep_rew_mean"][-1].tolist()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_signal_that_ended_the_command_is_its_exit_code(tmp_path, monkeypatch, number, code):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(GIVEN | {"trials": 1}))
    monkeypatch.setattr(
        "kiloworlds.sweep.search.Stopping.hear", lambda self, *of: os.kill(os.getpid(), number)
    )
    assert main(["sweep", str(tmp_path / "a.yaml"), "-o", str(tmp_path / "sweep")]) == code


def test_an_interrupted_sweep_goes_on_in_the_same_process(tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    given = GIVEN | {"sampler": "random", "population": 1, "trials": 2, "seeds": 1}
    sweep = Sweep(tmp_path, read_spec(given))
    train = sweep._train
    sweep._train = lambda trials, say: interrupt(trials)
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    wanted = [trial.params for trial in sweep.trials.study.get_trials() if trial.params]
    sweep._train = train
    outcomes = sweep.run()
    assert len(outcomes) == 2
    assert wanted[0]["learning_rate"] in [outcome.values["learning_rate"] for outcome in outcomes]


WORKER = """
import sys, json
from pathlib import Path
from kiloworlds.sweep.search import Sweep
from kiloworlds.sweep.spec import read_spec
print("ready", flush=True)
sweep = Sweep(Path(sys.argv[1]), read_spec(json.loads(sys.argv[2])))
sweep.run(say=print, on_progress=lambda progress: print("progress", flush=True))
"""


def worker(folder, given) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_trials_of_a_killed_process_are_tried_again(tmp_path):
    long = GIVEN | {"settings": SMALL | {"total_steps": 10**8}}
    process = worker(tmp_path, long)
    while not list(tmp_path.glob("runs/*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lock = tmp_path / "study.journal.lock"
    assert not lock.exists()
    (tmp_path / "sweep.yaml").unlink()
    said: list[str] = []
    outcomes = Sweep(tmp_path, read_spec(GIVEN)).run(say=said.append)
    assert said[0] == "3 trials of processes that are gone are tried again."
    assert len(outcomes) == 5
    assert {outcome.number for outcome in outcomes} == {3, 4, 5, 6, 7}


def test_two_processes_share_the_work(tmp_path):
    given = GIVEN | {"trials": 6, "population": 1, "seeds": 1}
    both = [worker(tmp_path, given) for _ in range(2)]
    shares = [process.communicate()[0].count("progress") for process in both]
    assert all(process.returncode == 0 for process in both)
    assert sum(shares) == 6
    outcomes = Sweep(tmp_path, read_spec(given)).outcomes()
    assert len(outcomes) == 6


def test_others_that_are_still_at_work_are_told(tmp_path, capsys):
    given = GIVEN | {"trials": 2, "population": 1, "seeds": 1}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(given))
    (other,) = Sweep(tmp_path / "sweep", read_spec(given)).trials.ask(1)  # of this living process
    words = ["sweep", str(tmp_path / "a.yaml"), "-o", str(tmp_path / "sweep"), "--json"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert (
        "1 trial is still being trained by other processes: what follows is not final" in said.err
    )
    told = json.loads(said.out)
    assert told["running"] == 1
    assert [trial["number"] for trial in told["trials"]] == [1 - other.number]


def test_what_was_stopped_early_is_not_cheap_for_that(tmp_path):
    whole = Outcome(0, {}, 5.0, [5.0], 10.0, 100, tmp_path, 0)
    outcomes = [whole, whole._replace(number=1, value=4.0, seconds=5.0, steps=50, stopped=True)]
    assert not costs_differ(outcomes)
    assert pareto_front(outcomes) == [whole]
    spec = read_spec(GIVEN)
    values = {"learning_rate": 0.001}
    figure = plot_sweep(spec, [each._replace(values=values) for each in outcomes])
    points, rings, _ = figure.axes[0].lines
    assert (points.get_ydata().tolist(), rings.get_ydata().tolist()) == ([5.0], [4.0])
    assert rings.get_markerfacecolor() == "none"


def test_a_trial_that_was_not_drawn_to_the_end_is_drawn_again(tmp_path, monkeypatch):
    grid = {
        "search": {"gamma": [0.9, 0.99], "num_epochs": [1, 2]},
        "sampler": "grid",
        "trials": None,
    }
    trials = Sweep(tmp_path, read_spec(GIVEN | grid)).trials
    calls = []

    def interrupt(trial, name, space):
        calls.append(name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        suggest(trial, name, space)

    suggest = store._suggest
    monkeypatch.setattr(store, "_suggest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trials.ask(4)
    assert trials.num_running == 0
    monkeypatch.setattr(store, "_suggest", suggest)
    drawn = [json.dumps(trial.params, sort_keys=True) for trial in trials.ask(9)]
    assert len(drawn) == len(set(drawn)) == 4


def test_hopeless_programs_end_early(tmp_path):
    rates = {"learning_rate": [0.01, 0.011, 0.012, 0.013, 0.014, 1e-9]}
    settings = {"total_steps": 30_000, "num_envs": 8, "num_steps": 32, "num_minibatches": 2}
    given = GIVEN | {"search": rates, "sampler": "grid", "trials": None, "settings": settings}
    given |= {"seeds": 1, "population": 5, "seed": 19}  # whose order ends with 1e-9
    sweep = Sweep(tmp_path, read_spec(given))
    outcomes = sweep.run()
    steps = {outcome.values["learning_rate"]: outcome.steps for outcome in outcomes}
    assert len(outcomes) == 6
    assert 15_000 <= steps.pop(1e-9) < 20_000  # it came last, alone
    assert min(steps.values()) >= 30_000


def test_a_sweep_all_of_whose_trials_fail_says_why(tmp_path):
    given = GIVEN | {"settings": SMALL | {"env_kwargs": {"lenght": 1.0}}, "trials": 2}
    with pytest.raises(SweepFailedError, match=r"all 2 trials failed; the first: .*lenght"):
        Sweep(tmp_path, read_spec(given)).run()


def test_by_default_tpe_learns_from_results_three_times(tmp_path):
    given = {name: value for name, value in GIVEN.items() if name != "population"}
    seen = []
    said: list[str] = []
    sweep = Sweep(tmp_path, read_spec(given | {"trials": 4, "seeds": 1}))
    sweep.run(said.append, seen.append)
    assert [progress.finished for progress in seen] == [1, 2, 3, 4]
    assert not any("draws all" in words for words in said)


def without_training(folder, sign: int = 1, **changes) -> tuple[Sweep, list[str]]:
    """A sweep that ran, each of whose trials took 2 seconds for 10 steps and reached its rate, with
    this sign; and what it said."""
    sweep = Sweep(folder, read_spec(GIVEN | changes))

    def end(trials, _):
        for trial in trials:
            facts = {
                "returns": [1.0],
                "seconds": 2.0,
                "steps": 10,
                "run": "0",
                "first": 0,
                "stopped": False,
                "curve": [],
            }
            sweep.trials.tell(trial, sign * trial.params["learning_rate"], **facts)

    sweep._train = end
    said: list[str] = []
    sweep.run(said.append)
    return sweep, said


def test_a_population_from_which_tpe_learns_nothing_is_told_once(tmp_path):
    _, said = without_training(tmp_path / "a", trials=8, population=8)
    assert said == [
        "population 8 draws all 8 trials at once: tpe learns from no result, and none is stopped "
        "early; leave population out, or give 2."
    ]
    assert without_training(tmp_path / "a", trials=10, population=16)[1] == []  # 8 are known
    assert without_training(tmp_path / "b", trials=8, population=8, sampler="random")[1] == []
    assert without_training(tmp_path / "c", trials=8, population=4)[1] == []


def test_what_tpe_draws_after_a_quarter_of_the_trials_depends_on_results(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)  # of which the sampler's seed is made
    drawn = []
    for sign in (1, -1):
        sweep, _ = without_training(tmp_path / str(sign), sign, trials=16, population=4)
        trials = sweep.trials.study.get_trials()
        drawn.append([trial.params["learning_rate"] for trial in trials])
    higher, lower = drawn
    assert higher[:4] == lower[:4]
    assert higher[4:8] != lower[4:8]


def test_trials_of_one_program_cost_the_same_for_each_step(tmp_path):
    search = {"learning_rate": [0.1, 0.2, 0.3], "num_epochs": [1, 2]}
    grid = {"search": search, "sampler": "grid", "trials": None}
    sweep = Sweep(tmp_path, read_spec(GIVEN | grid))
    for trial in sweep.trials.ask(6):
        epochs, rate = trial.params["num_epochs"], trial.params["learning_rate"]
        steps = 10 if rate == 0.3 else 20  # stopped early
        seconds = (1.0 if rate == 0.1 else 3.0) * epochs  # packed otherwise
        facts = {
            "returns": [1.0],
            "seconds": seconds,
            "steps": steps,
            "run": "0",
            "first": 0,
            "stopped": False,
            "curve": [],
        }
        sweep.trials.tell(trial, 1.0, **facts)
    for each in sweep.outcomes():
        assert each.seconds == pytest.approx(7 / 50 * each.values["num_epochs"] * each.steps)


def test_the_cost_of_a_trial_is_without_compilation(tmp_path):
    (only,) = Sweep(tmp_path, read_spec(GIVEN | {"trials": 1})).run()
    seconds = kw.load(only.run).metrics["seconds"]
    assert 0 < only.seconds < seconds[-1]
    assert only.seconds == pytest.approx((seconds[-1] - seconds[0]) * 4 / 3)  # of four rows


def outcome(number: int, value: float, seconds: float, folder) -> Outcome:
    return Outcome(number, {}, value, [value], seconds, 1, folder, 0)


def test_the_front_holds_what_no_other_beats_in_both(tmp_path):
    trials = [
        outcome(0, 10.0, 5.0, tmp_path),
        outcome(1, 8.0, 1.0, tmp_path),
        outcome(2, 7.0, 2.0, tmp_path),
        outcome(3, 10.0, 9.0, tmp_path),
        outcome(4, 8.0, 1.0, tmp_path),
    ]
    assert [each.number for each in pareto_front(trials)] == [1, 0]
    useless = outcome(5, 2.0, 0.1, tmp_path)
    assert [each.number for each in pareto_front([*trials, useless])] == [1, 0]


def test_costs_within_a_tenth_are_not_told_apart(tmp_path):
    trials = [outcome(0, 10.0, 5.4, tmp_path), outcome(1, 8.0, 5.0, tmp_path)]
    assert not costs_differ(trials)
    assert [each.number for each in pareto_front(trials)] == [0]
    assert costs_differ([*trials, outcome(2, 9.0, 5.6, tmp_path)])
    assert not costs_differ([])
    assert pareto_front([]) == []


def picture_of(folder, *seconds: float):
    search = {"hidden_sizes": [[8], [16]]}
    spec = read_spec(GIVEN | {"search": search})
    outcomes = [
        Outcome(number, {"hidden_sizes": sizes}, 10.0 - number, [1.0], cost, 1, folder, 0)
        for number, (sizes, cost) in enumerate(zip([[8], [16], [16]], seconds, strict=True))
    ]
    return plot_sweep(spec, outcomes)


def test_the_picture_has_costs_only_where_they_differ(tmp_path):
    def names(figure):
        return [axes.get_xlabel() for axes in figure.axes if axes.get_visible()]

    cost = "seconds, without compilation"
    assert names(picture_of(tmp_path, 5.0, 5.1, 5.2)) == ["hidden_sizes"]
    assert names(picture_of(tmp_path, 5.0, 2.0, 2.0)) == ["hidden_sizes", cost]


def test_trials_stand_at_their_choice(tmp_path):
    points, rings, star = picture_of(tmp_path, 5.0, 5.0, 5.0).axes[0].lines
    assert not len(rings.get_xdata())
    assert points.get_xdata().tolist() == [0.0, 1.0, 1.0]
    assert star.get_xdata() == 0.0


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rate.yaml").write_text(yaml.safe_dump(GIVEN | {"trials": 3}))
    assert main(["sweep", "rate.yaml", "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["path"] == "sweeps/rate"
    assert len(told["trials"]) == 3
    assert told["best"] == told["trials"][0]
    assert told["pareto"]
    assert (tmp_path / told["picture"]).stat().st_size > 5_000
    assert "kiloworlds train ppo CartPole-v1 --num-envs 8" in said.err
    assert "--seed 2 --num-seeds 5\n" in said.err
    assert "on other seeds, since the best was picked on its own" in said.err
    assert told["next"] in said.err
    for remark in told["remarks"]:
        assert f"! {remark}" in said.err
    assert "*" not in said.err  # trials of one program cost the same
    (tmp_path / "bad.yaml").write_text(
        "algorithm: ppo\nenv: CartPole-v1\nsearch: {gama: [1]}\ntrials: 1\n"
    )
    assert main(["sweep", "bad.yaml"]) == 2
    assert "bad.yaml: Unknown setting 'gama'. Did you mean 'gamma'" in capsys.readouterr().err
    assert main(["sweep", "none.yaml"]) == 2
