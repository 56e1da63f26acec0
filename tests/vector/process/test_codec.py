import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

import kiloworlds
from kiloworlds.vector.process.codec import SpaceMismatchError, codec

SPACES = [
    spaces.Box(-1, 1, (3,), np.float32),
    spaces.Box(-1, 1, (), np.float64),
    spaces.Box(0, 255, (4, 4, 2), np.uint8),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    spaces.MultiBinary(6),
    spaces.MultiBinary((2, 2)),
    spaces.Text(7),
    spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Text(3)])),
    spaces.Tuple([spaces.Dict(x=spaces.MultiBinary(2)), spaces.Discrete(3)]),
]


def arrays_of(coder):
    return [np.zeros(spec.shape, spec.dtype) for spec in coder.specs]


def assert_same(ours, theirs):
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, tuple):
        assert isinstance(ours, tuple)
        assert len(ours) == len(theirs)
        for left, right in zip(ours, theirs, strict=True):
            assert_same(left, right)
    else:
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_batches_are_gymnasiums(space):
    space.seed(0)
    values = [space.sample() for _ in range(4)]
    coder = codec(space, 4, "the observation")
    arrays = arrays_of(coder)
    for row, value in enumerate(values):
        coder.write(arrays, row, value)
    batch = coder.batch(arrays)
    assert_same(batch, concatenate(space, values, create_empty_array(space, 4)))
    assert batch in batch_space(space, 4)
    for row, value in enumerate(values):
        assert_same(coder.value(arrays, row), value)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_batches_are_written_row_by_row(space):
    batched = batch_space(space, 3)
    batched.seed(1)
    batch = batched.sample()
    coder = codec(space, 5, "the action")
    arrays = arrays_of(coder)
    rows = np.array([4, 0, 2])
    coder.write_batch(arrays, rows, batch)
    values = list(gymnasium.vector.utils.iterate(batched, batch))
    for position, row in enumerate(rows):
        assert_same(coder.value(arrays, row), values[position])


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (spaces.Box(0, 1, (2,)), np.zeros(2), r"float64 of shape \(2,\).*float32 of shape \(2,\)"),
        (spaces.Box(0, 1, (2,)), np.zeros(1, np.float32), r"shape \(1,\).*shape \(2,\)"),
        (spaces.Box(0, 1, (2,)), [0.0, 1.0], "is list"),
        (spaces.Box(0, 1, (2,)), None, "is NoneType"),
        (spaces.Discrete(3), 1.5, "is float"),
        (spaces.Discrete(3), np.zeros(1, int), r"shape \(1,\)"),
        (spaces.Text(3), "abcd", "'abcd'.*up to 3"),
        (spaces.Dict(a=spaces.Discrete(2)), {"b": 0}, r"keys \['b'\].*keys \['a'\]"),
        (spaces.Dict(a=spaces.Box(0, 1, (1,))), {"a": 1}, r"observation\['a'\] is int"),
        (spaces.Tuple([spaces.Discrete(2)]), (0, 1), "tuple of 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(space, value, message):
    coder = codec(space, 2, "the observation")
    with pytest.raises(SpaceMismatchError, match=message):
        coder.write(arrays_of(coder), 0, value)


def test_scalars_of_the_same_kind_stand_for_each_other():
    coder = codec(spaces.Discrete(3), 2, "the observation")
    arrays = arrays_of(coder)
    for value in (2, np.int32(2), np.array(2)):
        coder.write(arrays, 1, value)
        assert coder.value(arrays, 1) == 2


@pytest.mark.parametrize(
    "space",
    [
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Discrete(2), None),
        spaces.Dict(a=spaces.Sequence(spaces.Discrete(2))),
    ],
    ids=str,
)
def test_spaces_without_a_fixed_size_have_no_codec(space):
    assert codec(space, 2, "the observation") is None


class BigEndianEnv(gymnasium.Env):
    """Observes its last action, in the byte order of another machine."""

    observation_space = action_space = spaces.Box(-9, 9, (2,), ">f4")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, ">f4"), {}

    def step(self, action):
        return action.copy(), 0.0, False, False, {}


def test_another_byte_order_is_kept():
    with kiloworlds.make(lambda: BigEndianEnv(), 2, backend="process", num_workers=1) as envs:
        envs.reset(seed=0)
        for _ in range(3):
            actions = envs.action_space.sample()
            observations = envs.step(actions)[0]
            assert observations.dtype == np.dtype(">f4")
            np.testing.assert_array_equal(observations, actions)
        assert envs.restarts == 0
