import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.algorithms.advantages import generalized_advantages
from kiloworlds.algorithms.normalization import RunningStatistics
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import fast_key, permutation
from kiloworlds.core.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from kiloworlds.networks.action_heads import action_head
from kiloworlds.networks.initializers import built_together, orthogonal
from kiloworlds.networks.mlp import MLP, ObservationLayer, dense
from kiloworlds.networks.rows import NetworkRows


@pytest.mark.parametrize("shape", [(64, 64), (4, 64), (64, 3), (500, 64), (1, 1)])
def test_orthogonal_weights(shape):
    weight = orthogonal(jax.random.key(0), shape, 2.0)
    small = weight if shape[0] < shape[1] else weight.T
    np.testing.assert_allclose(small @ small.T, 4 * np.eye(min(shape)), atol=2e-5)


def test_orthogonal_weights_under_vmap():
    """The case in which XLA's batched QR never returns."""
    keys = jax.random.split(jax.random.key(0), 8)
    weights = jax.jit(jax.vmap(lambda key: [orthogonal(key, (64, 64), 1.0) for _ in range(4)]))(
        keys
    )
    assert all(np.isfinite(weight).all() for weight in weights)


def test_weights_made_together_are_those_made_alone():
    shapes = [(18, 64), (64, 64), (64, 5), (3, 7), (1, 1), (400, 300)]  # the last is a large one
    keys = jax.random.split(fast_key(0), len(shapes))

    def make(keys, shapes):
        return [orthogonal(key, shape, 2.0) for key, shape in zip(keys, shapes, strict=True)]

    def build(keys):  # a call within another changes nothing
        return make(keys[:2], shapes[:2]), built_together(lambda: make(keys[2:], shapes[2:]))

    alone = jax.tree.leaves(build(keys))
    together = jax.tree.leaves(jax.jit(lambda keys: built_together(lambda: build(keys)))(keys))
    assert [weight.shape for weight in together] == shapes
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_build_that_fails_leaves_nothing_behind():
    def build():
        orthogonal(fast_key(0), (2, 2), 1.0)
        raise ValueError("no network")

    with pytest.raises(ValueError, match="no network"):
        built_together(build)
    assert np.any(orthogonal(fast_key(0), (2, 2), 1.0))


def test_dense_has_the_gradient_of_a_product():
    inputs = jax.random.normal(jax.random.key(0), (3, 5, 4))
    weight = jax.random.normal(jax.random.key(1), (4, 2))
    ours = jax.grad(lambda x, w: jnp.sin(dense(x, w)).sum(), (0, 1))(inputs, weight)
    plain = jax.grad(lambda x, w: jnp.sin(x @ w).sum(), (0, 1))(inputs, weight)
    for first, second in zip(ours, plain, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


def test_the_observation_layer_reads_one_hot_vectors():
    space = Tuple(
        (Discrete(3, start=1), MultiDiscrete((2, 4)), Box(0, 1, (2, 2)), MultiBinary((3,)))
    )
    layer = ObservationLayer(jax.random.key(0), space, 8, 1.0)
    observation = (
        jnp.array([1, 3]),
        jnp.array([[1, 0], [0, 3]]),
        jnp.arange(8.0).reshape(2, 2, 2),
        jnp.array([[1, 0, 1], [0, 0, 1]], jnp.int8),
    )
    hot = np.concatenate(
        [
            np.eye(3)[np.array([0, 2])],
            np.eye(2)[np.array([1, 0])],
            np.eye(4)[np.array([0, 3])],
            np.arange(8.0).reshape(2, 4),
            np.array([[1, 0, 1], [0, 0, 1]]),
        ],
        axis=1,
    )
    np.testing.assert_allclose(layer(observation), hot @ layer.weight + layer.bias, rtol=1e-5)


def test_the_observation_layer_reads_dictionaries():
    space = Dict({"b": Box(0, 1, (2,)), "a": Discrete(2)})
    layer = ObservationLayer(jax.random.key(0), space, 3, 1.0)
    result = layer({"b": jnp.ones((5, 2)), "a": jnp.zeros(5, int)})
    expected = layer.weight[0] + layer.weight[2] + layer.weight[3] + layer.bias
    np.testing.assert_allclose(result, np.tile(expected, (5, 1)), rtol=1e-5)


def test_mlp_shapes_and_unknown_activation():
    network = MLP(jax.random.key(0), Box(-1, 1, (3,)), (16, 8), 5, "relu", 1.0)
    assert network(jnp.ones((7, 2, 3))).shape == (7, 2, 5)
    with pytest.raises(InvalidValueError, match="'tanh'"):
        MLP(jax.random.key(0), Box(-1, 1, (3,)), (16,), 5, "tahn", 1.0)


@pytest.mark.parametrize(
    "space", [Discrete(3), Discrete(3, start=5), MultiDiscrete((2, 3)), MultiBinary((4,))]
)
def test_discrete_heads_sample_what_their_probabilities_say(space):
    head = action_head(space)
    free = jnp.zeros(0)
    outputs = jax.random.normal(jax.random.key(0), (head.num_outputs,))
    batch = jnp.tile(outputs, (20_000, 1))
    raw = head.sample(jax.random.key(1), batch, free)
    assert jax.vmap(space.contains)(head.to_environment(raw)).all()
    assert head.to_environment(raw).dtype == space.sample(jax.random.key(0)).dtype
    log_prob, entropy = head.log_prob_and_entropy(batch, free, raw)
    # The mean of -log p over samples estimates the entropy.
    assert float(-log_prob.mean()) == pytest.approx(float(entropy[0]), abs=0.02)
    best = head.mode(outputs[None])
    assert (head.log_prob_and_entropy(outputs[None], free, best)[0] >= log_prob.max() - 1e-5).all()


def test_the_gaussian_head_is_a_normal():
    from scipy import stats

    space = Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]))
    head = action_head(space)
    free = jnp.array([-0.5, 0.3])
    outputs = jnp.tile(jnp.array([0.2, -1.0]), (20_000, 1))
    raw = head.sample(jax.random.key(0), outputs, free)
    log_prob, entropy = head.log_prob_and_entropy(outputs, free, raw)
    expected = stats.norm(np.array([0.2, -1.0]), np.exp([-0.5, 0.3])).logpdf(raw).sum(1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)
    assert float(-log_prob.mean()) == pytest.approx(float(entropy[0]), abs=0.03)
    actions = head.to_environment(raw)
    assert jax.vmap(space.contains)(actions).all()
    np.testing.assert_allclose(head.to_environment(jnp.zeros((1, 2))), [[0.0, 0.5]])


def test_spaces_without_a_head_are_named():
    with pytest.raises(InvalidValueError, match="no policy for the action space"):
        action_head(Tuple((Discrete(2),)))


def test_advantages_equal_the_definition():
    rng = np.random.default_rng(0)
    steps, envs, gamma, lam = 12, 3, 0.9, 0.8
    rewards, values, next_values = rng.normal(size=(3, steps, envs)).astype(np.float32)
    terminated = rng.random((steps, envs)) < 0.2
    finished = terminated | (rng.random((steps, envs)) < 0.2)
    expected = np.zeros((steps, envs))
    for env in range(envs):
        for start in range(steps):
            weight = 1.0
            for step in range(start, steps):
                future = 0.0 if terminated[step, env] else gamma * next_values[step, env]
                delta = rewards[step, env] + future - values[step, env]
                expected[start, env] += weight * delta
                if finished[step, env]:
                    break
                weight *= gamma * lam
    result = generalized_advantages(
        *map(jnp.asarray, (rewards, values, next_values, terminated, finished)), gamma, lam
    )
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_what_is_valid_only():
    values = jax.random.normal(jax.random.key(0), (40, 3, 2)) + 5.0
    valid = jax.random.bernoulli(jax.random.key(1), 0.5, (40, 3))
    spoilt = jnp.where(valid[..., None], values, 1e3)
    statistics = RunningStatistics.of_shape(jnp.zeros(2)).update(spoilt, valid=valid)
    kept = np.asarray(values)[np.asarray(valid)]
    np.testing.assert_allclose(statistics.mean, kept.mean(0), rtol=1e-4)
    np.testing.assert_allclose(statistics.variance, kept.var(0), rtol=1e-3)
    same = statistics.update(spoilt, valid=jnp.zeros((40, 3), bool))
    np.testing.assert_allclose(same.mean, statistics.mean)
    assert same.total == statistics.total


def test_running_statistics_equal_those_of_all_data():
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, (10, 4, 5)).astype(np.float32) * (i + 1) for i in range(6)]
    statistics = RunningStatistics.of_shape(jnp.zeros(5))
    for batch in batches:
        statistics = statistics.update(jnp.asarray(batch))
    everything = np.concatenate(batches).reshape(-1, 5)
    np.testing.assert_allclose(statistics.mean, everything.mean(0), rtol=1e-3)
    np.testing.assert_allclose(statistics.variance, everything.var(0), rtol=1e-3)
    normal = statistics.normalize(jnp.asarray(everything))
    assert np.abs(normal.mean(0)).max() < 0.01


@pytest.mark.parametrize("size", [1, 2, 3, 100, 2048])
def test_permutation_orders_everything_once(size):
    order = permutation(jax.random.key(3), size)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_permutations_are_uniform():
    keys = jax.random.split(jax.random.key(0), 24_000)
    orders = np.asarray(jax.vmap(lambda key: permutation(key, 4))(keys))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    statistic = ((counts - 1000) ** 2 / 1000).sum()
    assert statistic < 55  # chi-square with 23 degrees of freedom exceeds it once in 5,000


def test_networks_of_different_shapes_are_rows_of_one_matrix():
    large = {"weight": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(2)}
    small = (jnp.arange(3.0) - 5,)
    rows = NetworkRows(large, jax.eval_shape(lambda: small))
    matrix = rows.pack(large, small)
    assert matrix.shape == (2, 8)
    assert (matrix[1, 3:] == 0).all()
    for index, network in enumerate((large, small)):
        restored = rows.unpack(index, matrix[index])
        jax.tree.map(np.testing.assert_array_equal, restored, network)


@pytest.mark.parametrize(("mean", "deviation"), [(1000.0, 0.1), (1e4, 1.0), (-300.0, 0.05)])
def test_statistics_of_values_far_from_zero(mean, deviation):
    values = np.random.default_rng(0).normal(mean, deviation, (400, 20, 2)).astype(np.float32)
    statistics = RunningStatistics.of_shape(jnp.zeros(2)).update(values[:200]).update(values[200:])
    spread = np.asarray(statistics.normalize(values)).std((0, 1))
    np.testing.assert_allclose(spread, 1.0, rtol=0.02)


def test_boxes_with_one_bound_are_clipped_at_it():
    head = action_head(Box(np.array([0, -1, -np.inf]), np.array([np.inf, 3, 5]), (3,)))
    raw = jnp.array([[-2.0, -2.0, -2.0], [7.0, 0.5, 7.0]])
    np.testing.assert_allclose(head.to_environment(raw), [[0, -1, -2], [7, 2, 5]])
