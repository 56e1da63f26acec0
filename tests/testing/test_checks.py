"""Each kind of fault is caught by its own check, and a sound environment by none."""

import functools
import os
import threading

import broken_envs as broken
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from kiloworlds.testing.checks import checks_for
from kiloworlds.testing.checks.construction import why_not_picklable
from kiloworlds.testing.checks.context import Context
from kiloworlds.testing.checks.values import difference, not_finite, why_outside


def findings(name, make, kind="gymnasium", steps=60):
    """What one check finds, in this process."""
    context = Context(make, kind, steps, seconds=2.0, seed=0)
    (check,) = [check for check in checks_for(kind) if check.name == name]
    return list(check.run(context))


def only(found, row):
    """The findings of one row, as (result, seen)."""
    return [(finding.result, finding.seen) for finding in found if finding.check == row]


CAUGHT = [
    # the check that runs, the row it gives, the fault, the result, what it says
    ("constructor", "constructor", broken.always_the_same, "failed", "the same object"),
    ("interface", "interface", broken.OldGym, "failed", "reset takes no seed"),
    ("interface", "interface", broken.FourValues, "failed", "step returns 4 values"),
    ("interface", "interface", broken.NoSpaces, "failed", "no observation_space and no action"),
    (
        "interface",
        "interface",
        broken.RaisesAlways,
        "failed",
        "step raised ValueError: no goal (br",
    ),
    ("interface", "step after end", broken.NoResetAfterEnd, "failed", "it is over"),
    (
        "rollout",
        "observations",
        broken.OutOfBounds,
        "failed",
        "step 3: observation[1] = 2.5 lies outs",
    ),
    ("rollout", "observations", broken.WrongDtype, "failed", "float64, but its space says float32"),
    ("rollout", "observations", broken.WrongShape, "failed", "has shape (2, 1), but its space"),
    (
        "rollout",
        "observations",
        broken.NestedOutOfBounds,
        "failed",
        "['where'][0] = 6 lies outside 0",
    ),
    ("rollout", "observations", broken.MissingKey, "failed", "observation lacks ['where']"),
    (
        "rollout",
        "types",
        broken.ChangingDtype,
        "failed",
        "step 2: observation is float16 (2,), and",
    ),
    ("rollout", "finite", broken.NaNObservation, "failed", "observation[0] is nan"),
    ("rollout", "finite", broken.InfiniteReward, "failed", "reward is -inf"),
    ("rollout", "rewards", broken.ArrayReward, "failed", "reward is ndarray"),
    ("rollout", "rewards", broken.NoReward, "failed", "reward is NoneType"),
    ("rollout", "aliasing", broken.Aliased, "failed", "step 1: changed an observation returned"),
    ("rollout", "aliasing", broken.SharedConstant, "warning", "share memory"),
    ("rollout", "actions", broken.ChangesAction, "failed", "step 1: step changed its action[0]"),
    ("rollout", "flags", broken.IntegerFlags, "failed", "step 1: terminated is int 0"),
    ("rollout", "episode end", broken.MergedFlags, "warning", "always come together"),
    ("rollout", "episode end", broken.Endless, "warning", "no episode ended in 60 steps"),
    ("rollout", "infos", broken.HugeInfo, "warning", "29 KiB pickled, most of it 'frame'"),
    ("rollout", "infos", broken.UnpicklableInfo, "failed", "info['lock'] cannot be pickled"),
    (
        "rollout",
        "rollout",
        broken.RaisesLater,
        "failed",
        "step 8 raised ValueError: no goal (broken_",
    ),
    ("rollout", "rollout", broken.NoResetAfterEnd, "ok", "60 steps"),
    ("seeding", "seeding", broken.Unseeded, "failed", "equal seeds, but after 0 calls"),
    (
        "seeding",
        "seeding",
        broken.NewSeedEachReset,
        "failed",
        "draws a new seed instead of going on",
    ),
    ("seeding", "seeding", broken.GlobalRandom, "warning", "global generator"),
    ("seeding", "seeding", broken.SameStartForEver, "failed", "repeats the same start for ever"),
    (
        "seeding",
        "seeding",
        broken.SeedIgnored,
        "failed",
        "4 different seeds give the same episodes",
    ),
    ("seeding", "seeding", broken.KeepsState, "failed", "a used environment reset with the seed"),
    ("seeding", "seeding", broken.NoRandomness, "ok", "nothing random was seen"),
    ("copies", "copies", broken.SharedState, "failed", "they share state"),
    ("copies", "copies", broken.Unseeded, "warning", "cannot be told"),
    ("rendering", "rendering", broken.WrongPicture, "failed", "a float32 array of shape (20, 30)"),
    ("rendering", "rendering", broken.NeedsOpenGL, "warning", "no OpenGL context"),
    (
        "rendering",
        "rendering",
        broken.RaisesInRender,
        "failed",
        "render raised ValueError: no colour",
    ),
    ("rendering", "rendering", broken.NoRenderMode, "warning", "takes no render_mode"),
    ("rendering", "rendering", broken.ForgetsRenderMode, "failed", "its render_mode is None"),
    (
        "closing",
        "closing",
        broken.ClosesOnce,
        "failed",
        "second close raised RuntimeError: closed al",
    ),
    (
        "closing",
        "closing",
        broken.ClosesOnlyAfterReset,
        "failed",
        "before the first reset raised Attr",
    ),
    (
        "workers",
        "workers",
        broken.KnowsItsProcess,
        "failed",
        "goes another way: step 1: rewards[0]",
    ),
    ("workers", "workers", broken.Unseeded, "warning", "cannot be told"),
    ("leaks", "leaks", broken.LeavesFilesOpen, "failed", "1 open files remain"),
    ("gymnasium check_env", "gymnasium check_env", broken.Aliased, "failed", "share an object"),
]


@pytest.mark.parametrize(
    ("check", "row", "make", "result", "seen"),
    CAUGHT,
    ids=[f"{row}-{make.__name__}".replace(" ", "_") for _, row, make, _, _ in CAUGHT],
)
def test_catches(check, row, make, result, seen):
    told = only(findings(check, make), row)
    assert any(one == result and seen in words for one, words in told), told


@pytest.mark.parametrize(
    "check",
    [
        "constructor",
        "pickling",
        "interface",
        "gymnasium check_env",
        "rollout",
        "seeding",
        "copies",
        "rendering",
        "workers",
        pytest.param("leaks", marks=pytest.mark.slow),
        "closing",
    ],
)
def test_finds_nothing_wrong_with_a_sound_environment(check):
    found = findings(check, broken.Fine)
    assert found
    assert [finding for finding in found if finding.result != "ok"] == []
    assert all(not finding.mend for finding in found)


def test_leak_of_memory():
    (finding,) = [f for f in findings("leaks", broken.Leaks, steps=1000) if f.check == "leaks"]
    assert finding.result == "failed"
    assert 25 * 1024 < finding.measured["memory_growth_bytes"] / 1500 < 40 * 1024


def test_environment_that_fails_only_in_workers():
    make = functools.partial(broken.OnlyInThisProcess, os.getpid())
    ((result, seen),) = only(findings("workers", make), "workers")
    assert result == "failed"
    assert "its constructor raised FileNotFoundError: map.txt" in seen


def test_time_limit_excuses_an_endless_environment():
    make = functools.partial(gymnasium.make, "Pendulum-v1")
    assert only(findings("rollout", make, steps=50), "episode end") == [
        ("ok", "none in 50 steps; a time limit is set, 200")
    ]


def test_speed_is_measured_alone_and_in_workers():
    (finding,) = findings("speed", broken.Fine)
    assert finding.result == "ok"
    assert set(finding.measured) == {
        "steps_per_second",
        "resets_per_second",
        "pool_steps_per_second",
    }
    assert min(finding.measured.values()) > 100


def test_pickling_names_the_culprit():
    lock = threading.Lock()

    def make():
        assert lock
        return broken.Fine()

    ((result, seen),) = only(findings("pickling", make), "pickling")
    assert result == "failed"
    assert "the captured variable 'lock' is lock" in seen


def test_pickling_by_cloudpickle_is_enough():
    assert only(findings("pickling", lambda: broken.Fine()), "pickling") == [
        ("ok", "with cloudpickle, which kiloworlds' workers use")
    ]


def test_why_not_picklable_looks_into_partials_and_objects():
    class Factory:
        def __init__(self):
            self.file = threading.Lock()

        def __call__(self):
            return broken.Fine()

    assert why_not_picklable(broken.Fine) is None
    assert why_not_picklable(functools.partial(broken.Fine, length=threading.Lock())) == (
        "argument 'length' is lock"
    )
    assert why_not_picklable(Factory()) == "the attribute 'file' is lock"


@pytest.mark.filterwarnings("ignore:The old environment creation API:DeprecationWarning")
def test_pettingzoo_environments_are_checked():
    pytest.importorskip("pettingzoo")
    from pettingzoo.test.example_envs import generated_agents_env_v0, generated_agents_parallel_v0

    rows = findings("rollout", generated_agents_parallel_v0.parallel_env, "parallel")
    assert only(rows, "observations") == [("ok", "lie in their space")]
    rows = findings("pettingzoo tests", generated_agents_env_v0.env, "aec")
    assert ("ok", "passed") in only(rows, "pettingzoo seed")
    assert any(r == "warning" and "possible_agents" in s for r, s in only(rows, "pettingzoo api"))


@pytest.mark.filterwarnings("ignore:The old environment creation API:DeprecationWarning")
def test_agent_out_of_its_space_is_named():
    pytest.importorskip("pettingzoo")
    from pettingzoo.test.example_envs import generated_agents_parallel_v0

    class Broken(generated_agents_parallel_v0.parallel_env):
        def step(self, actions):
            observations, *rest = super().step(actions)
            for observation in observations.values():
                observation[0] = 7
            return observations, *rest

    rows = only(findings("rollout", Broken, "parallel"), "observations")
    assert rows[0][0] == "failed"
    assert "step 1: observation of type" in rows[0][1]
    assert "[0] = 7 lies outside 0 to 1" in rows[0][1]


def test_why_outside():
    box = spaces.Box(0, 1, (2, 2), np.float32)
    good = np.full((2, 2), 0.5, np.float32)
    assert why_outside(box, good, "x") is None
    bad = good.copy()
    bad[1, 0] = -3
    assert why_outside(box, bad, "x") == "x[1, 0] = -3 lies outside 0 to 1"
    assert why_outside(box, [[0, 0], [0, 0]], "x").startswith("x is list")
    assert why_outside(spaces.Discrete(3, start=2), 5, "x") == "x = 5 lies outside 2 to 4"
    assert (
        why_outside(spaces.Discrete(3), 1.0, "x") == "x is float 1.0, but its space is Discrete(3)"
    )
    assert why_outside(spaces.Box(0, 1, (), np.float32), np.float32(0.5), "x") is None
    assert why_outside(spaces.MultiBinary(2), np.array([0, 2]), "x").endswith(
        "not in MultiBinary(2)"
    )
    pair = spaces.Tuple((spaces.Discrete(2), box))
    assert why_outside(pair, (1, bad), "x") == "x[1][1, 0] = -3 lies outside 0 to 1"
    assert why_outside(pair, [1, good], "x").startswith("x is list")


def test_difference_is_exact_and_takes_nan_as_equal():
    assert difference({"a": np.array([1.0, np.nan])}, {"a": np.array([1.0, np.nan])}, "x") is None
    assert difference((1, np.array([1, 2])), (1, np.array([1, 3])), "x") == "x[1][1] is 2 and 3"
    assert difference(np.zeros(2), np.zeros(3), "x") == "x has the shapes (2,) and (3,)"
    assert difference({"a": 1}, {"b": 1}, "x").startswith("x has other parts")
    assert difference("a", "b", "x") == "x is a and b"


def test_not_finite_names_the_entry():
    assert not_finite({"a": np.array([[1.0, np.inf]])}, "x") == "x['a'][0, 1] is inf"
    assert not_finite((1, 2.0, np.array([3])), "x") is None


@pytest.mark.filterwarnings("ignore:The old environment creation API:DeprecationWarning")
def test_pettingzoo_tests_that_fail():
    pytest.importorskip("pettingzoo")
    from pettingzoo.test.example_envs import generated_agents_parallel_v0

    class Revives(generated_agents_parallel_v0.parallel_env):
        def step(self, actions):
            before = list(self.agents)
            result = super().step(actions)
            self.agents = list(dict.fromkeys([*before, *self.agents]))
            return result

    class Unseeded(generated_agents_parallel_v0.parallel_env):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            return observations, {agent: np.random.rand() for agent in rewards}, *rest

    api = only(findings("pettingzoo tests", Revives, "parallel"), "pettingzoo api")
    assert api[-1][0] == "failed"
    seed = only(findings("pettingzoo tests", Unseeded, "parallel"), "pettingzoo seed")
    ((result, seen),) = seed
    assert result == "failed"
    assert seen.startswith("Incorrect values for rewards")
