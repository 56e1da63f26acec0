"""Infos of single environments, merged into batches."""

import gymnasium
import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.infos import merge_infos
from kiloworlds.vector.process.pool import ProcessExecutor
from kiloworlds.vector.sync import SyncExecutor
from kiloworlds.vector.thread import ThreadExecutor


def merged(*infos):
    batch = {}
    for position, info in enumerate(infos):
        merge_infos(batch, info, position, len(infos))
    return batch


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [(1, 2.5, float), (True, 3, int), (np.float32(0.5), 0.1, float), (2**40, np.int8(3), int)],
)
def test_a_column_is_widened_where_types_differ(first, second, dtype):
    batch = merged({"x": first}, {"x": second})
    assert batch["x"].dtype == dtype
    assert batch["x"].tolist() == [first, second]
    assert batch["_x"].tolist() == [True, True]


def test_values_that_share_no_array_are_objects():
    batch = merged({"x": np.zeros(2)}, {}, {"x": np.ones(3)}, {"x": "text"})
    assert batch["x"].dtype == object
    assert batch["x"][0].tolist() == [0, 0]
    assert batch["x"][1] is None
    assert batch["x"][2].tolist() == [1, 1, 1]
    assert batch["x"][3] == "text"
    assert batch["_x"].tolist() == [True, False, True, True]


def test_dictionaries_nest():
    batch = merged({"a": {"b": 1}}, {"a": {"b": 0.5, "c": None}})
    assert batch["a"]["b"].tolist() == [1.0, 0.5]
    assert batch["a"]["_c"].tolist() == [False, True]
    assert batch["a"]["c"].tolist() == [None, None]
    assert batch["_a"].tolist() == [True, True]


class Maze(gymnasium.Env):
    """Reports by its own words; its last step of three is lost in its sense."""

    observation_space = gymnasium.spaces.Discrete(4)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return 0, {"env_id": "maze"}

    def step(self, action):
        self.steps += 1
        over = self.steps == 3
        info = {"lost": over}
        if over:
            info["episode"] = {"r": 7.0, "l": 3}
        return self.steps, 1.0, over, False, info


@pytest.mark.parametrize("backend", [SyncExecutor, ProcessExecutor, ThreadExecutor])
def test_what_an_environment_calls_lost_is_not_lost(backend):
    with backend(Maze, 2, autoreset_mode="next_step", episode_statistics=False) as envs:
        _, infos = envs.reset(seed=0)
        assert infos["env_id_"].tolist() == ["maze", "maze"]
        assert "env_id" not in infos
        for over in (False, False, True):
            *_, infos = envs.step(np.zeros(2, int))
            assert infos["lost_"].tolist() == [over, over]
            assert infos["_lost_"].all()
            assert not {"lost", "_lost"} & infos.keys()


@pytest.mark.parametrize("backend", [SyncExecutor, ProcessExecutor])
def test_episodes_are_reported_once(backend):
    with backend(Maze, 1, autoreset_mode="next_step") as envs:
        envs.reset(seed=0)
        for _ in range(2):
            envs.step(np.zeros(1, int))
        with pytest.raises(InvalidValueError, match=r"already reports.*'environment', or False"):
            envs.step(np.zeros(1, int))
    with backend(Maze, 1, episode_statistics="environment") as envs:
        envs.reset(seed=0)
        for _ in range(3):
            *_, infos = envs.step(np.zeros(1, int))
        assert infos["episode"]["r"].tolist() == [7.0]
