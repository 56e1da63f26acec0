"""Recurrent units against plain steps, forwards and backwards."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.spaces import Box
from kiloworlds.networks.recurrent import GRU, Memory

STEPS, SEQUENCES, INPUTS, SIZE = 7, 3, 4, 5


@pytest.fixture
def given():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(STEPS, SEQUENCES, INPUTS)).astype(np.float32)
    starts = np.zeros((STEPS, SEQUENCES), bool)
    starts[0, 0] = starts[3, 0] = starts[5, 2] = True
    memory = rng.normal(size=(SEQUENCES, SIZE)).astype(np.float32)
    return inputs, starts, memory


def gru():
    units = GRU(jax.random.key(1), INPUTS, SIZE)
    return eqx.tree_at(lambda tree: tree.candidate_bias, units, jnp.linspace(-1, 1, SIZE))


def step_by_step(units, inputs, starts, memory):
    seen = []
    for step in range(STEPS):
        memory = jnp.where(starts[step][:, None], 0.0, memory)
        memory = units.step(inputs[step], memory)
        seen.append(memory)
    return jnp.stack(seen)


def test_a_unit_follows_the_formulas():
    units = gru()
    given, memory = np.ones(INPUTS, np.float32), np.linspace(-1, 1, SIZE).astype(np.float32)
    drive = given @ np.asarray(units.inputs.weight) + np.asarray(units.inputs.bias)
    pull = memory @ np.asarray(units.recurrent)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    reset = sigmoid(drive[:SIZE] + pull[:SIZE])
    update = sigmoid(drive[SIZE : 2 * SIZE] + pull[SIZE : 2 * SIZE])
    candidate = np.tanh(
        drive[2 * SIZE :] + reset * (pull[2 * SIZE :] + np.asarray(units.candidate_bias))
    )
    expected = (1 - update) * candidate + update * memory
    np.testing.assert_allclose(units.step(given, memory), expected, rtol=1e-5)


def test_sequences_equal_steps(given):
    units = gru()
    np.testing.assert_allclose(
        units.over_time(*given), step_by_step(units, *given), rtol=1e-5, atol=1e-6
    )


def test_the_gradient_of_sequences_is_that_of_steps(given):
    weight = np.random.default_rng(1).normal(size=(STEPS, SEQUENCES, SIZE)).astype(np.float32)
    inputs, starts, memory = given

    def loss(run):
        return lambda units, inputs, memory: (weight * run(units, inputs, starts, memory)).sum()

    ours = jax.grad(loss(lambda units, *rest: units.over_time(*rest)), (0, 1, 2))
    theirs = jax.grad(loss(step_by_step), (0, 1, 2))
    for mine, plain in zip(
        jax.tree.leaves(ours(gru(), inputs, memory)),
        jax.tree.leaves(theirs(gru(), inputs, memory)),
        strict=True,
    ):
        np.testing.assert_allclose(mine, plain, rtol=2e-4, atol=1e-5)


def test_a_start_forgets(given):
    inputs, starts, memory = given
    reader = Memory(jax.random.key(0), Box(-1.0, 1.0, (INPUTS,)), SIZE, "tanh")
    seen = reader.over_time(inputs, starts, memory)
    other = reader.over_time(inputs, starts, memory + 1.0)
    np.testing.assert_array_equal(seen[:, 0], other[:, 0])  # it starts anew at once
    assert not np.allclose(seen[:5, 2], other[:5, 2])
    np.testing.assert_array_equal(seen[5:, 2], other[5:, 2])
