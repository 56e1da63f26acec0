import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Int, Key

from kiloworlds.algorithms.ppo import PPO, PPOConfig
from kiloworlds.algorithms.ppo_losses import Minibatch
from kiloworlds.core.environment import Environment, Step
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.networks.cnn import Convolution, ImageEncoder, image_shape
from kiloworlds.training.config import build_config
from kiloworlds.training.loops.fused import FusedTraining


def images(*shape):
    return Box(0, 255, shape, np.uint8)


def random_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def reference_convolution(layer, inputs, given):
    """The same layer by XLA's convolution."""
    blocks = layer.kernel // layer.stride
    weight = layer.weight.reshape(blocks, blocks, layer.stride, layer.stride, inputs, -1)
    weight = weight.transpose(0, 2, 1, 3, 4, 5).reshape(layer.kernel, layer.kernel, inputs, -1)
    result = jax.lax.conv_general_dilated(
        given,
        weight,
        (layer.stride, layer.stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return result + layer.bias


@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("size", [(20, 20), (23, 18)])
def test_a_convolution_equals_that_of_xla(kernel, stride, size):
    layer = Convolution(jax.random.key(0), 3, 5, kernel, stride)
    given = random_images(2, *size, 3)
    expected = reference_convolution(layer, 3, given.astype(np.float32) / 255)
    np.testing.assert_allclose(layer(given), expected, atol=1e-5)
    scaled = jnp.asarray(given, jnp.float32) / 255
    np.testing.assert_allclose(layer(scaled), expected, atol=1e-5)


def test_the_encoder_has_the_gradient_of_convolutions():
    encoder = ImageEncoder(jax.random.key(0), images(2, 36, 40), (4, 5, 6), 7)
    given = random_images(3, 2, 36, 40)

    def reference(encoder):
        hidden = given.transpose(0, 2, 3, 1).astype(np.float32) / 255
        for inputs, layer in zip((2, 4, 5), encoder.convolutions, strict=True):
            hidden = jax.nn.relu(reference_convolution(layer, inputs, hidden))
        return jax.nn.relu(hidden.reshape(3, -1) @ encoder.dense.weight + encoder.dense.bias)

    np.testing.assert_allclose(encoder(given), reference(encoder), atol=1e-5)
    ours = jax.jit(jax.grad(lambda e: jnp.sin(e(given)).sum()))(encoder)
    theirs = jax.jit(jax.grad(lambda e: jnp.sin(reference(e)).sum()))(encoder)
    for first, second in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-5)


def test_its_weights_are_orthogonal():
    encoder = ImageEncoder(jax.random.key(0), images(4, 84, 84), (32, 64, 64), 512)
    sizes = [layer.weight.shape for layer in encoder.convolutions]
    assert sizes == [(256, 32), (512, 64), (576, 64)]
    assert encoder.dense.weight.shape == (3136, 512)
    for layer in encoder.convolutions:
        product = layer.weight.T @ layer.weight
        np.testing.assert_allclose(product, 2 * np.eye(len(product)), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param((4, 84, 60), (84, 60, 4), marks=pytest.mark.slow),
        ((96, 80, 3), (96, 80, 3)),
        pytest.param((2, 64, 50, 3), (64, 50, 6), marks=pytest.mark.slow),
    ],
)
def test_the_axes_of_images(shape, expected):
    assert image_shape(images(*shape)) == expected
    encoder = ImageEncoder(jax.random.key(0), images(*shape), (2, 3, 4), 5)
    given = random_images(2, 3, *shape)
    assert encoder(given).shape == (2, 3, 5)
    np.testing.assert_allclose(encoder(given)[1, 2], encoder(given[1, 2]), atol=1e-5)


def test_the_newest_frame_of_a_stack_of_colours_is_seen_apart():
    encoder = ImageEncoder(jax.random.key(0), images(2, 40, 40, 3), (2, 3, 4), 5)
    one, other = np.zeros((2, 1, 2, 40, 40, 3), np.uint8)
    one[0, 0], other[0, 1] = 255, 255
    assert not np.allclose(encoder(one), encoder(other))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (images(4, 26, 84), "27 x 27 pixels or more, not 26 x 84"),
        (Box(0, 1, (4, 84, 84)), "needs images of uint8"),
        (Discrete(3), "needs images of uint8"),
    ],
)
def test_what_is_no_image_is_refused(space, message):
    with pytest.raises(InvalidValueError, match=message):
        PPO(PPOConfig(network="cnn"), space, Discrete(2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "cnnn"}, "Did you mean 'cnn'"),
        ({"network": None}, "is not one of 'auto', 'mlp', 'cnn'"),
        ({"cnn_channels": (8, 8)}, "has 2 entries"),
        ({"cnn_channels": (8, 0, 8)}, "cnn_channels=0 must be a whole number"),
        ({"cnn_channels": 8}, "cnn_channels=8 must be a tuple"),
        ({"cnn_features": 0}, "cnn_features=0 must be a whole number"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InvalidValueError, match=message):
        PPOConfig(**settings)


def test_auto_takes_the_network_that_fits():
    def shares(network, space):
        return PPO(PPOConfig(network=network), space, Discrete(2)).shares_network

    assert shares("auto", images(4, 84, 84))
    assert shares("auto", images(2, 40, 40, 3))
    assert not shares("auto", images(7, 7, 3))
    assert not shares("auto", Box(-1, 1, (3,)))
    assert not shares("mlp", images(1, 36, 36))


def test_the_shared_network_refuses_standardised_images():
    with pytest.raises(InvalidValueError, match="normalize_observations=True"):
        PPO(PPOConfig(normalize_observations=True), images(1, 36, 36), Discrete(2))


@pytest.mark.slow
def test_one_gradient_is_the_sum_of_both_losses():
    """What the shared network learns is what policy and value loss teach it apart."""
    ppo = PPO(PPOConfig(cnn_channels=(2, 3, 4), cnn_features=5), images(1, 36, 36), Discrete(3))
    parameters = ppo.init(jax.random.key(0)).parameters
    assert parameters.shape[0] == 1
    rng = np.random.default_rng(0)
    batch = Minibatch(
        random_images(6, 1, 36, 36),
        rng.integers(0, 3, 6).astype(np.int32),
        np.full(6, -1.1, np.float32),
        *rng.normal(size=(3, 6)).astype(np.float32),
    )

    def apart(row):
        network = ppo._rows.unpack(0, row)
        policy = ppo.losses.of_outputs(network.outputs(batch.observation), network.free, batch)
        return policy[0] + ppo.losses.of_values(network.value(batch.observation), batch)[0]

    gradient, losses = jax.jit(ppo.steps.gradient)(parameters, batch)
    expected = jax.jit(jax.grad(apart))(parameters[0])
    np.testing.assert_allclose(gradient[0], expected, rtol=1e-3, atol=1e-6)
    assert np.isfinite(losses).all()
    assert losses[-1] > 0


class SeeSide(Environment):
    """One step: a bright square on the left asks for action 0, on the right for action 1."""

    cheap_reset = True

    def _see(self, side: Int[Array, ""]) -> Array:
        column = jnp.arange(36)[None, None, :]
        row = jnp.arange(36)[None, :, None]
        inside = (column >= 6 + 18 * side) & (column < 14 + 18 * side) & (row >= 14) & (row < 22)
        return jnp.where(inside, 255, 20).astype(jnp.uint8)

    def reset(self, key: Key[Array, ""]):
        side = jax.random.bernoulli(key).astype(jnp.int32)
        return side, self._see(side)

    def step(self, key: Key[Array, ""], state: Int[Array, ""], action: Int[Array, ""]):
        reward = jnp.where(action == state, 1.0, -1.0)
        return state, Step(self._see(state), reward, jnp.asarray(True), jnp.asarray(False), {})

    @property
    def observation_space(self) -> Box:
        return images(1, 36, 36)

    @property
    def action_space(self) -> Discrete:
        return Discrete(2)


@pytest.mark.slow
def test_ppo_learns_from_pixels():
    env = SeeSide()
    updates = 40
    config = build_config(
        "ppo",
        "probe",
        {
            "num_envs": 16,
            "num_steps": 8,
            "num_minibatches": 2,
            "learning_rate": 2e-3,
            "gamma": 0.5,
            "cnn_channels": (4, 8, 8),
            "cnn_features": 32,
            "total_steps": updates * 128,
        },
    )
    training = FusedTraining(config, env)
    assert training.algorithm.shares_network
    state, _ = training.run(training.init(), updates)
    learner = jax.tree.map(lambda leaf: leaf[0], training.learner(state))
    seen = jnp.stack([env._see(jnp.int32(side)) for side in (0, 1)])
    greedy = training.algorithm.act_greedily(training.algorithm.policy(learner), seen)
    assert greedy.tolist() == [0, 1]
    np.testing.assert_allclose(training.algorithm.critic(learner)(seen), [1, 1], atol=0.25)
