import gymnasium
import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.vector.base import expand_seeds


@pytest.fixture(params=["compiled", "sync"])
def envs(request):
    with_backend = kw.make("CartPole-v1", 2, backend=request.param)
    yield with_backend
    with_backend.close()


class Tensor:
    """As a tensor of torch: an array by the protocol, with a type of its own."""

    dtype = "torch.int64"
    shape = (2,)

    def __array__(self, dtype=None, copy=None):
        return np.array([0, 1], dtype)


class DeviceTensor(Tensor):
    def __array__(self, dtype=None, copy=None):
        raise TypeError("copy the tensor to host memory first")


@pytest.mark.parametrize("seed", [np.array(3), np.int32(3)])
def test_an_array_of_one_seed_is_a_seed(envs, seed):
    observations, _ = envs.reset(seed=seed)
    np.testing.assert_array_equal(observations, envs.reset(seed=3)[0])


@pytest.mark.parametrize(
    "seed", [np.array(1.5), np.array(True), np.array([[1, 2], [3, 4]]), b"ab", "12", [True, False]]
)
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(InvalidValueError, match="seed"):
        expand_seeds(seed, 2)


def test_actions_of_another_library_are_converted(envs):
    envs.reset(seed=0)
    observations = envs.step(Tensor())[0]
    envs.reset(seed=0)
    np.testing.assert_array_equal(observations, envs.step(np.array([0, 1]))[0])


@pytest.mark.parametrize("actions", [DeviceTensor(), [[0], [0, 1]], None, "ab", [None, 1]])
def test_what_is_no_action_is_refused(envs, actions):
    envs.reset(seed=0)
    with pytest.raises(InvalidValueError, match="actions"):
        envs.step(actions)


def test_a_mask_needs_a_full_reset_first(envs):
    mask = np.array([True, False])
    with pytest.raises(WrongCallError, match="before the first full reset"):
        envs.reset(options={"reset_mask": mask})
    envs.reset(seed=0)
    with pytest.raises(InvalidValueError, match="seed together with reset_mask"):
        envs.reset(seed=1, options={"reset_mask": mask})
    with pytest.raises(InvalidValueError, match="boolean numpy array"):
        envs.reset(options={"reset_mask": [True, False]})
    assert envs.reset(options={"reset_mask": mask})[0].shape == (2, 4)


@pytest.mark.parametrize("options", [[1], "ab", 3])
def test_options_that_are_no_dict_are_refused(options):
    envs = kw.make("CartPole-v1", 2, backend="sync")
    with pytest.raises(InvalidValueError, match=r"options=.* must be a dict"):
        envs.reset(options=options)
    envs.close()


class OptionsEnv(gymnasium.Env):
    """Tells the options of its reset."""

    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Box(0, 3, (1,), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {"start": (options or {})["start"]}

    def step(self, action):
        return 0, 0.0, False, False, {}


def test_other_options_reach_the_environments():
    envs = kw.make(lambda: OptionsEnv(), 2)
    assert envs.reset(options={"start": 5})[1]["start"].tolist() == [5, 5]
    mask = np.array([False, True])
    infos = envs.reset(options={"start": 7, "reset_mask": mask})[1]
    assert infos["start"][1] == 7
    np.testing.assert_array_equal(infos["_start"], mask)
    with pytest.raises(InvalidValueError, match="actions are object"):
        envs.step(np.array([[None], [None]]))
    envs.close()
