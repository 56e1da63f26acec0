import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import (
    Box,
    Dict,
    Discrete,
    MultiBinary,
    MultiDiscrete,
    Tuple,
    from_gymnasium,
)

INF = np.inf
BOXES = [
    Box(-1.0, 1.0, (2, 3)),
    Box(np.array([0.0, -5.0], np.float32), np.array([1.0, 5.0], np.float32)),
    Box(0, 255, (4, 4, 3), np.uint8),
    Box(-128, 127, (50,), np.int8),
    Box(-3, 4, (5,), np.int32),
    Box(-(2**31), 2**31 - 1, (20,), np.int32),
    Box(0, 2**32 - 1, (20,), np.uint32),
    Box(-1.0, 1.0, (3,), np.float16),
    Box(-1.0, 1.0, (3,), np.float64),
    Box(0.1, 0.1, (3,), np.float16),
    Box(-3.0e38, 3.0e38, (3,)),
    Box(0.0, INF, (3,)),
    Box(-INF, 2.5, (3,)),
    Box(-INF, INF, ()),
    Box(np.array([-INF, 0.0, -1.0, -INF]), np.array([INF, INF, 1.0, 3.0])),
]
SPACES = [
    *BOXES,
    Discrete(5),
    Discrete(3, start=-1),
    Discrete(1 << 20, start=-5),
    MultiDiscrete((2, 3, 7)),
    MultiBinary((4,)),
    MultiBinary((2, 3)),
    Tuple((Discrete(32), Discrete(11), Discrete(2))),
    Dict({"position": Box(-1.0, 1.0, (2,)), "mode": Discrete(3)}),
    Dict({"b": Tuple((Discrete(2), MultiBinary((3,)))), "a": MultiDiscrete((2, 2))}),
]


def _to_numpy(value):
    """One sample as Gymnasium's spaces expect it."""
    return jax.tree.map(np.asarray, value)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_round_trip_through_gymnasium_changes_nothing(space):
    there = space.to_gymnasium()
    assert from_gymnasium(there) == space
    assert from_gymnasium(there).to_gymnasium() == there
    assert hash(from_gymnasium(there)) == hash(space)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_samples_lie_in_the_space_and_in_gymnasiums(space):
    twin = space.to_gymnasium()
    samples = jax.jit(jax.vmap(space.sample))(jax.random.split(fast_key(0), 200))
    assert jax.jit(jax.vmap(space.contains))(samples).all()
    for i in range(200):
        assert twin.contains(_to_numpy(jax.tree.map(lambda leaf: leaf[i], samples)))  # noqa: B023


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_samples_of_gymnasium_lie_in_the_space(space):
    twin = space.to_gymnasium()
    twin.seed(0)
    assert all(space.contains(twin.sample()) for _ in range(20))


@pytest.mark.parametrize(
    "space", [*BOXES[2:7], Discrete(5), Discrete(3, start=-1), MultiDiscrete((2, 3))], ids=str
)
def test_integer_samples_reach_both_bounds(space):
    samples = jax.vmap(space.sample)(jax.random.split(fast_key(1), 3000))
    if isinstance(space, Box):
        low, high = float(space.low.min()), float(space.high.max())
        margin = (high - low) * 1e-3
    elif isinstance(space, Discrete):
        low, high, margin = space.start, space.start + space.n - 1, 0
    else:
        low, high, margin = 0, max(space.nvec) - 1, 0
    values = np.asarray(samples, np.float64)
    assert low <= values.min() <= low + margin
    assert high - margin <= values.max() <= high


def test_unbounded_samples_spread_beyond_the_bounds():
    space = BOXES[-1]
    samples = np.asarray(jax.vmap(space.sample)(jax.random.split(fast_key(2), 5000)))
    normal, above, inside, below = samples.T
    assert abs(normal.mean()) < 0.1
    assert 0.9 < normal.std() < 1.1
    assert 0.9 < above.mean() < 1.1  # exponential of mean 1
    assert 1.9 < (3.0 - below.mean()) + 1 < 2.1
    assert abs(inside.mean()) < 0.05


def test_bounded_samples_are_uniform_over_the_whole_range():
    wide = Box(-3.0e38, 3.0e38, (4,))
    samples = np.asarray(jax.vmap(wide.sample)(jax.random.split(fast_key(3), 5000)), np.float64)
    assert np.isfinite(samples).all()
    assert abs(samples.mean() / 3.0e38) < 0.03
    assert 0.55 < samples.std() / 3.0e38 < 0.6  # 1 / sqrt(3)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_samples_have_the_spaces_types(space):
    sample, twin = space.sample(fast_key(0)), space.to_gymnasium().sample()
    leaves, twins = jax.tree.leaves(sample), jax.tree.leaves(twin)
    assert [leaf.shape for leaf in leaves] == [np.shape(leaf) for leaf in twins]
    for leaf, other in zip(leaves, twins, strict=True):
        # Without jax_enable_x64, what is int64 or float64 with Gymnasium has 32 bits.
        assert leaf.dtype == jax.dtypes.canonicalize_dtype(np.asarray(other).dtype)


@pytest.mark.parametrize(
    ("space", "outside"),
    [
        (Box(-1.0, 1.0, (2,)), [0.0, 1.1]),
        (Box(0.0, INF, (2,)), [0.0, -0.1]),
        (Box(-1.0, 1.0, (2,)), [0.0, np.nan]),
        (Discrete(3), 3),
        (Discrete(3, start=-1), 2),
        (Discrete(3, start=-1), -2),
        (MultiDiscrete((2, 3)), [2, 0]),
        (MultiDiscrete((2, 3)), [0, -1]),
        (MultiBinary((2,)), [0, 2]),
        (Tuple((Discrete(2), Discrete(3))), (1, 3)),
        (Dict({"a": Discrete(2), "b": Discrete(3)}), {"a": 2, "b": 0}),
    ],
)
def test_values_outside_are_not_contained(space, outside):
    value = jax.tree.map(jnp.asarray, outside, is_leaf=lambda part: isinstance(part, list))
    assert not jax.jit(space.contains)(value)


def test_equal_spaces_are_equal_keys():
    spaces = {Box(0, 1, (2,)): "a", Discrete(2): "b"}
    assert spaces[Box(np.zeros(2), np.ones(2))] == "a"
    assert Box(0, 1, (2,)) != Box(0, 1, (2,), np.int8)
    assert Box(0, 1, (2,)) != Box(0, 2, (2,))
    assert Dict({"b": Discrete(2), "a": Discrete(3)}) == Dict({"a": Discrete(3), "b": Discrete(2)})


def test_is_bounded():
    assert Box(0, 1, (2,)).is_bounded
    assert Box(0, 255, (2,), np.uint8).is_bounded
    assert not Box(0, INF, (2,)).is_bounded
    assert not Box(-INF, 0, (2,)).is_bounded


def test_bounds_come_back_in_shape_and_type():
    space = Box(np.array([[0.0], [-2.0]]), 3.0, dtype=np.float16)
    assert space.shape == (2, 1)
    assert space.low.dtype == space.high.dtype == np.float16
    np.testing.assert_array_equal(space.low, [[0.0], [-2.0]])
    np.testing.assert_array_equal(space.high, [[3.0], [3.0]])


def test_a_named_part_of_a_dict():
    assert Dict({"a": Discrete(2), "b": Discrete(3)})["b"] == Discrete(3)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Discrete(0), r"n must be 1 or more"),
        (lambda: MultiDiscrete(()), "at least one entry"),
        (lambda: MultiDiscrete((2, 0)), "each 1 or more"),
        (lambda: Box(1.0, 0.0, (2,)), "low"),
        (lambda: Box(np.zeros(3), 1.0, (2,)), "shape"),
        (lambda: Box(np.nan, 1.0, (2,)), "NaN"),
        (lambda: Box(-1, 1, (2,), np.uint8), "uint8"),
        (lambda: Box(0, 300, (2,), np.uint8), "uint8"),
        (lambda: Box(0, INF, (2,), np.int32), "int32"),
        (lambda: Tuple(()), "at least one"),
        (lambda: Dict({}), "at least one"),
        (lambda: MultiBinary(0), "1 or more"),
    ],
)
def test_a_wrong_space_is_explained(build, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        build()


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Text(5),
        gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)),
        gymnasium.spaces.MultiDiscrete([2, 2], start=[1, 0]),
        gymnasium.spaces.MultiDiscrete([[2, 2], [3, 3]]),
        gymnasium.spaces.OneOf([gymnasium.spaces.Discrete(2)]),
        gymnasium.spaces.Tuple([gymnasium.spaces.Text(5)]),
    ],
    ids=str,
)
def test_a_space_without_counterpart_is_explained(space):
    with pytest.raises(InvalidValueError, match="has no kiloworlds counterpart"):
        from_gymnasium(space)
