"""Multi-layer perceptrons over batches, and a first layer that reads any observation space.

B stands for any leading batch axes in shapes.
"""

import reprlib
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from kiloworlds.core.errors import InvalidValueError, did_you_mean
from kiloworlds.core.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from kiloworlds.networks.initializers import orthogonal

ACTIVATIONS: dict[str, Callable] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


def activation(name: str) -> Callable:
    """The activation function of that name, or InvalidValueError."""
    if not isinstance(name, str):
        given = reprlib.repr(name)
        raise InvalidValueError(f"activation={given} must be a name, such as 'tanh'.")
    if name not in ACTIVATIONS:
        raise InvalidValueError(
            f"activation={name!r} is not one of {', '.join(map(repr, ACTIVATIONS))}."
            f"{did_you_mean(name, ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


@jax.custom_vjp
def dense(
    inputs: Float[Array, "*B inputs"], weight: Float[Array, "inputs outputs"]
) -> Float[Array, "*B outputs"]:
    """`inputs @ weight`, with a gradient that is faster on CPU than the automatic one.

    XLA's CPU matrix product is slow when both operands are contracted over their first axis, as the
    gradient of the weights is: transposing the inputs in a step of its own takes two thirds of the
    time.
    """
    return inputs @ weight


def _dense_forward(inputs, weight):
    return inputs @ weight, (inputs, weight)


def _dense_backward(residuals, gradient):
    inputs, weight = residuals
    rows = inputs.reshape(-1, inputs.shape[-1])
    columns = jax.lax.optimization_barrier(rows.T)
    return gradient @ weight.T, columns @ gradient.reshape(-1, gradient.shape[-1])


dense.defvjp(_dense_forward, _dense_backward)


class Linear(eqx.Module):
    """`inputs @ weight + bias` over whatever batch axes lead."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, key: Key[Array, ""], inputs: int, outputs: int, scale: float):
        self.weight = orthogonal(key, (inputs, outputs), scale)
        self.bias = jnp.zeros(outputs)

    def __call__(self, inputs: Float[Array, "*B inputs"]) -> Float[Array, "*B outputs"]:
        return dense(inputs, self.weight) + self.bias


def leaf_spaces(space: Space) -> list[Space]:
    """The spaces at the leaves of a nested space, in the order of `jax.tree.leaves`."""
    match space:
        case Tuple():
            return [leaf for part in space.spaces for leaf in leaf_spaces(part)]
        case Dict():
            return [leaf for _, part in space.items for leaf in leaf_spaces(part)]
    return [space]


def _categories(space: Space) -> tuple[int, ...]:
    """How many categories each discrete entry of a leaf space has; () if it is continuous."""
    match space:
        case Discrete():
            return (space.n,)
        case MultiDiscrete():
            return space.nvec
    return ()


def _width(space: Space) -> int:
    match space:
        case Box() | MultiBinary():
            return int(np.prod(space.shape))
    return sum(_categories(space))


class ObservationLayer(eqx.Module):
    """The first layer: a linear map of an observation of any space.

    Discrete entries are read as one-hot vectors: their product with the weights is a row of them,
    looked up instead of multiplied. Boxes are flattened.
    """

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]
    space: Space = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], space: Space, outputs: int, scale: float):
        self.space = space
        self.weight = orthogonal(key, (sum(map(_width, leaf_spaces(space))), outputs), scale)
        self.bias = jnp.zeros(outputs)

    def __call__(self, observation: PyTree) -> Float[Array, "*B outputs"]:
        offset = 0
        result = self.bias
        leaves = jax.tree.leaves(observation)
        for space, leaf in zip(leaf_spaces(self.space), leaves, strict=True):
            width = _width(space)
            rows = self.weight[offset : offset + width]
            categories = _categories(space)
            if categories:
                entries = leaf[..., None] if isinstance(space, Discrete) else leaf
                start = space.start if isinstance(space, Discrete) else 0
                first = np.cumsum((0, *categories[:-1]))
                result = result + rows[entries - start + first].sum(-2)
            else:
                batch = leaf.shape[: leaf.ndim - len(space.shape)]  # type: ignore[attr-defined]
                result = result + dense(leaf.reshape((*batch, width)).astype(rows.dtype), rows)
            offset += width
        return result


class MLP(eqx.Module):
    """Hidden layers with an activation after each, then a linear output layer.

    Args:
        space: what goes in.
        hidden_sizes: widths of the hidden layers.
        outputs: width of the output.
        activation_name: see `ACTIVATIONS`.
        output_scale: scale of the last layer's orthogonal initial weights; hidden layers use
            sqrt(2).
    """

    first: ObservationLayer
    rest: tuple[Linear, ...]
    activation_name: str = eqx.field(static=True)

    def __init__(
        self,
        key: Key[Array, ""],
        space: Space,
        hidden_sizes: tuple[int, ...],
        outputs: int,
        activation_name: str,
        output_scale: float,
    ):
        activation(activation_name)
        widths = (*hidden_sizes, outputs)
        keys = jax.random.split(key, len(widths))
        scales = [2**0.5] * len(hidden_sizes) + [output_scale]
        self.first = ObservationLayer(keys[0], space, widths[0], scales[0])
        self.rest = tuple(
            Linear(keys[i], widths[i - 1], widths[i], scales[i]) for i in range(1, len(widths))
        )
        self.activation_name = activation_name

    def __call__(self, observation: PyTree) -> Float[Array, "*B outputs"]:
        activate = activation(self.activation_name)
        result = self.first(observation)
        for layer in self.rest:
            result = layer(activate(result))
        return result
