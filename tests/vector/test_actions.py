import re

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.base import VectorEnv

NAN = float("nan")

BITS = spaces.MultiBinary(3)
BYTES = spaces.Box(0, 255, (1,), np.uint8)
NESTED = spaces.Dict(box=spaces.Box(-1, 1, (2,)), kind=spaces.Discrete(3))
PAIR = spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(3)])
DEEP = spaces.Dict(arm=spaces.Tuple([spaces.MultiBinary(2), spaces.Dict(say=spaces.Text(4))]))
LISTS = spaces.Sequence(spaces.Discrete(3))


class Even(gymnasium.Space):
    """A custom space."""

    def __repr__(self):  # the same in every process, for the names of tests
        return "Even()"

    def sample(self, mask=None, probability=None):
        return 2 * int(self.np_random.integers(5))

    def contains(self, x):
        return x % 2 == 0


class Unknowing(Even):
    """A custom space that cannot tell what lies in it."""

    def __repr__(self):  # the same in every process, for the names of tests
        return "Unknowing()"

    def contains(self, x):
        return super(Even, self).contains(x)


SPACES = [
    spaces.Box(-1, 1, (2,)),
    spaces.Box(-1, 1, (), np.float64),
    spaces.Box(-1, 1, (2,), ">f4"),
    spaces.Box(0, 255, (2, 2), np.uint8),
    spaces.Box(np.array([-3, 0]), np.array([3, 9]), dtype=np.int16),
    spaces.Box(0, 2**64 - 1, (1,), np.uint64),
    spaces.Box(np.zeros(2, bool), np.ones(2, bool), dtype=np.bool_),
    spaces.Box(0, 1, (0,)),
    spaces.Discrete(5, start=-2),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 1], [-2, 3]])),
    BITS,
    spaces.MultiBinary((2, 2)),
    spaces.Text(7),
    NESTED,
    PAIR,
    DEEP,
    LISTS,
    spaces.Graph(spaces.Box(0, 1, (2,)), spaces.Discrete(2)),
    spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (2,))]),
    spaces.Dict(a=LISTS, b=spaces.Discrete(2)),
    Even(),
    Unknowing(),
]


def check(space, actions, count=3, env_ids=None):
    envs = VectorEnv()
    envs._describe(3, spaces.Discrete(2), space, AutoresetMode.SAME_STEP)
    return envs._check_actions(actions, count, env_ids)


def nested(box=None, kind=None, **more):
    box = np.zeros((3, 2), np.float32) if box is None else box
    return {"box": box, "kind": np.zeros(3, int) if kind is None else kind, **more}


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_what_gymnasium_samples_is_accepted(space, count):
    batched = batch_space(space, count)
    batched.seed(0)
    for _ in range(5):
        actions = batched.sample()
        checked = check(space, actions, count)
        assert type(checked) is type(actions)
        if not isinstance(space, Unknowing | spaces.Graph):
            assert checked in batched
        if isinstance(actions, np.ndarray):
            assert checked.dtype == space.dtype
            np.testing.assert_array_equal(checked, actions)


@pytest.mark.parametrize(
    ("space", "actions", "expected"),
    [
        (spaces.Discrete(3), np.array([0, 1, 2], np.uint64), np.array([0, 1, 2])),
        (spaces.Discrete(3), [0, 1, 2], np.array([0, 1, 2])),
        (spaces.Discrete(5, start=-2), [-2, 0, 2], np.array([-2, 0, 2])),
        (spaces.MultiDiscrete([3, 4]), [(0, 1)] * 3, np.array([[0, 1]] * 3)),
        (BYTES, np.array([[0], [255], [7]]), np.array([[0], [255], [7]], np.uint8)),
        (BYTES, [[3.0], [255.0], [0.0]], np.array([[3], [255], [0]], np.uint8)),
        (BYTES, [[True], [False], [True]], np.array([[1], [0], [1]], np.uint8)),
        (BITS, [[True, False, True]] * 3, np.array([[1, 0, 1]] * 3, np.int8)),
        (BITS, [[1.0, 0.0, 1.0]] * 3, np.array([[1, 0, 1]] * 3, np.int8)),
        (BITS, jnp.ones((3, 3), bool), np.ones((3, 3), np.int8)),
        (spaces.Box(-1, 1, (1,)), [[0.5], [1], [-9.0]], np.array([[0.5], [1], [-9]], np.float32)),
        (spaces.Box(-1, 1, (1,)), [[1], [0], [2]], np.array([[1], [0], [2]], np.float32)),
        (spaces.Box(-1, 1, (), np.float16), jnp.arange(3), np.arange(3, dtype=np.float16)),
        (spaces.Text(3), np.array(["a", "b", "c"]), ("a", "b", "c")),
        (LISTS, [(), (1,), (2, 0)], ((), (1,), (2, 0))),
    ],
)
def test_other_types_are_brought_to_that_of_the_space(space, actions, expected):
    checked = check(space, actions)
    assert getattr(checked, "dtype", None) == getattr(expected, "dtype", None)
    if isinstance(expected, tuple):
        assert checked == expected
    else:
        np.testing.assert_array_equal(checked, expected)


def test_parts_of_nested_actions_are_brought_to_their_types():
    checked = check(PAIR, [np.zeros((3, 2)), [0, 1, 2]])
    assert isinstance(checked, tuple)
    assert [part.dtype for part in checked] == [np.float32, np.int64]
    checked = check(NESTED, {"kind": [0, 1, 2], "box": [[0, 1]] * 3})
    assert list(checked) == ["box", "kind"]
    assert checked["box"].dtype == np.float32


def test_narrower_integers_stay_as_they_are():
    actions = np.array([0, 1, 2], np.int32)
    assert check(spaces.Discrete(3), actions) is actions


@pytest.mark.parametrize(
    ("space", "dtype"), [(spaces.Discrete(3), jnp.int32), (spaces.Box(-1, 1, ()), jnp.float32)]
)
def test_arrays_of_jax_stay_on_their_device(space, dtype):
    actions = jnp.arange(3, dtype=dtype)
    assert check(space, actions) is actions


class Grid(Even):
    """A custom space whose batches are arrays."""

    def contains(self, x):
        return 0 <= x < 10


@batch_space.register(Grid)
def batch_grid(space, n=1):
    return spaces.Box(0, 9, (n,), np.int64)


def test_custom_batches_keep_their_form():
    actions = np.array([0, 9, 3])
    assert check(Grid(), actions) is actions
    with pytest.raises(InvalidValueError, match=r"action of environment 1 is .*10.*, outside"):
        check(Grid(), np.array([0, 10, 3]))
    with pytest.raises(InvalidValueError, match="actions are 2; 3 environments need one each"):
        check(Grid(), np.array([0, 1]))


WRONG = [
    # Numbers without a batch axis, which NumPy would spread over all environments.
    (BITS, [1, 0, 1], "actions have shape (3,); 3 environments need (3, 3)."),
    (BITS, 7, "actions have shape (); 3 environments need (3, 3)."),
    (spaces.Discrete(3), None, "actions are of type NoneType; 3 environments need (3,)."),
    (spaces.Discrete(3), {"a": 1}, "actions are of type dict; 3 environments need (3,)."),
    # Numbers that a cast would change.
    (
        BITS,
        [[1, 0, 1], [0, 0, 0], [300, -1, 1]],
        "the action of environment 2 is [300 -1 1], outside MultiBinary(3); the nearest valid one is "
        "[1 0 1].",
    ),
    (
        BITS,
        [[1, 0, 0.7]] * 3,
        "is [1. 0. 0.7], outside MultiBinary(3); the nearest valid one is [1 0 1]",
    ),
    (BITS, [[1, 0, NAN]] * 3, "is [ 1. 0. nan], outside MultiBinary(3); actions must be finite."),
    (BITS, [["1", "0", "1"]] * 3, "actions are <U1; MultiBinary(3) needs int8."),
    (
        BYTES,
        [[0], [300.7], [0]],
        "the action of environment 1 is [300.7], outside Box(0, 255, (1,), uint8)",
    ),
    (BYTES, [[-1.2], [0], [0]], "the nearest valid one is [0]."),
    (BYTES, [[300], [0], [0]], "the action of environment 0 is [300], outside"),
    (BYTES, [[0], [0], [-1]], "the action of environment 2 is [-1], outside"),
    (BYTES, [[0], [0], [NAN]], "actions must be finite"),
    (spaces.Box(0, 9, (1,), np.int64), [[0], [10], [0]], "the nearest valid one is [9]"),
    (
        spaces.Box(np.array([-3, 0]), np.array([3, 9]), dtype=np.int16),
        [[0, 0], [-4, 9], [0, 0]],
        "the action of environment 1 is [-4 9], outside",
    ),
    (
        spaces.Box(-(2**63), 2**63 - 1, (), np.int64),
        [0, 1e19, 0],
        "the action of environment 1 is 1e+19",
    ),
    (spaces.Discrete(3), [0, 3, 1], "is 3, outside Discrete(3); the nearest valid one is 2."),
    (
        spaces.Discrete(5, start=-2),
        np.array([0, 9, 1], np.uint8),
        "is 9, outside Discrete(5, start=-2); the nearest valid one is 2.",
    ),
    (
        spaces.Discrete(3),
        [0.0, 1.0, 2.0],
        "actions are float64; Discrete(3) needs integers (int32 or int64).",
    ),
    (
        spaces.Discrete(3),
        [False] * 3,
        "actions are bool; Discrete(3) needs integers (int32 or int64).",
    ),
    (spaces.Discrete(3), [2**70] * 3, "actions are object"),
    (spaces.MultiDiscrete([3, 4]), [[2, 3], [2, 4], [0, 0]], "environment 1 is [2 4], outside"),
    (
        spaces.Box(-1, 1, (1,)),
        [[0], [0], [1e300]],
        "is [1.e+300]; actions must be finite, and float32",
    ),
    (
        spaces.Box(-1, 1, (1,), np.float16),
        np.full((3, 1), 1e9, np.float32),
        "float16 ends at 65504.",
    ),
    (
        spaces.Box(-1, 1, (1,), np.float16),
        [[2**62], [0], [0]],
        "actions must be finite, and float16",
    ),
    (spaces.Box(-1, 1, (1,)), [[0], [NAN], [0]], "environment 1 is [nan]; actions must be finite."),
    (spaces.Box(-1, 1, (1,)), np.full((3, 1), NAN, np.float32), "actions must be finite."),
    # Parts of nested spaces.
    (NESTED, nested(box=[0.0, 0.0]), "actions['box'] have shape (2,); 3 environments need (3, 2)."),
    (
        NESTED,
        nested(kind=[0, 1.9, 0]),
        "actions['kind'] are float64; Discrete(3) needs integers (int32 or int64).",
    ),
    (
        NESTED,
        nested(kind=[0, 99, 0]),
        "the action of environment 1 at ['kind'] is 99, outside Discrete(3)",
    ),
    (
        NESTED,
        nested(box=[[0, 0], [0, 0], [NAN, 0]]),
        "environment 2 at ['box'] is [nan 0.]; actions must",
    ),
    (
        NESTED,
        nested(boxes=0),
        "actions hold 'boxes'; the parts are ['box', 'kind']. Did you mean 'box'?",
    ),
    (NESTED, {"box": np.zeros((3, 2))}, "actions lack 'kind'; the parts are ['box', 'kind']."),
    (
        NESTED,
        [nested()] * 3,
        "actions are of type list; this environment needs a dict of one batch per",
    ),
    (NESTED, None, "actions are of type NoneType; this environment needs a dict"),
    (
        PAIR,
        (np.zeros((3, 2)), [0] * 3, [0] * 3),
        "actions are 3 parts; this environment needs a tuple of 2",
    ),
    (PAIR, (np.zeros((3, 2)),), "actions are 1 parts; this environment needs a tuple of 2 batches"),
    (PAIR, None, "actions are of type NoneType; this environment needs a tuple of 2 batches"),
    (
        PAIR,
        (np.zeros((3, 2)), [0, 3, 0]),
        "the action of environment 1 at [1] is 3, outside Discrete(3)",
    ),
    (
        DEEP,
        {"arm": (np.zeros((3, 2)), {"say": ("a", "toolong", "b")})},
        "the action of environment 1 at ['arm'][1]['say'] is 'toolong', outside Text(1, 4,",
    ),
    (DEEP, {"arm": (np.zeros((3, 2)), {})}, "actions['arm'][1] lack 'say'"),
    # Spaces without an array form.
    (LISTS, ((9,),), "actions are 1; 3 environments need one each."),
    (LISTS, ((9,), (), ()), "the action of environment 0 is (9,), outside Sequence(Discrete(3)"),
    (LISTS, "bad", "actions are of type str; 3 environments need 3 in Sequence(Discrete(3)"),
    (LISTS, None, "actions are of type NoneType; 3 environments need 3 in"),
    (spaces.Text(3), "abc", "actions are of type str; 3 environments need 3 in Text"),
    (spaces.Text(3), ("a", 1, "b"), "the action of environment 1 is 1, outside Text"),
    (
        spaces.Graph(spaces.Discrete(2), None),
        (1, 2, 3),
        "the action of environment 0 is 1, outside Graph",
    ),
    (
        spaces.OneOf([spaces.Discrete(2)]),
        ((0, 1), (0, 2), (0, 0)),
        "environment 1 is (0, 2), outside",
    ),
    (Even(), (2, 4, 5), "the action of environment 2 is 5, outside"),
    (Even(), (2, None, 4), "the action of environment 1 is None, outside"),
]


@pytest.mark.parametrize(("space", "actions", "message"), WRONG)
def test_wrong_actions_are_refused_in_a_sentence(space, actions, message):
    with pytest.raises(InvalidValueError, match=re.escape(message)) as caught:
        check(space, actions)
    assert "\n" not in str(caught.value)


def test_the_environments_of_a_part_of_the_batch_are_named():
    with pytest.raises(InvalidValueError, match="the action of environment 7 is 3"):
        check(spaces.Discrete(3), [0, 3], 2, np.array([4, 7]))


class Echo(gymnasium.Env):
    """Tells the last action in its infos."""

    observation_space = spaces.Discrete(2)

    def __init__(self, space):
        self.action_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, 0.0, False, False, {"told": repr(action)}


@pytest.mark.parametrize("backend", ["sync", "thread"])
@pytest.mark.parametrize(
    ("space", "right", "wrong"),
    [
        (BITS, np.ones((3, 3), np.int8), [1, 0, 1]),
        (NESTED, nested(), nested(box=np.ones(2, np.float32))),
        (PAIR, (np.zeros((3, 2)), [0, 1, 2]), (np.ones((3, 2)), [0, 1, 3])),
        (LISTS, ((0,), (1, 2), ()), ((0,), (1, 2), (3,))),
    ],
    ids=["MultiBinary", "Dict", "Tuple", "Sequence"],
)
def test_refused_actions_reach_no_environment(backend, space, right, wrong):
    options = {} if backend == "sync" else {"num_workers": 1}
    with kw.make(lambda: Echo(space), 3, backend=backend, **options) as envs:
        envs.reset(seed=0)
        told = envs.step(right)[4]["told"]
        with pytest.raises(InvalidValueError, match="action"):
            envs.step(wrong)
        assert envs.step(right)[4]["told"].tolist() == told.tolist()
