"""The convolutional network of Mnih et al. (2015), as matrix products over patches.

Inside a compiled loop, where PPO learns, XLA's CPU convolutions are many times slower than outside
(docs/pixels.md has the measurement); matrix products are not. B stands for any leading batch axes.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped, UInt8

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.spaces import Box, Space
from kiloworlds.networks.initializers import orthogonal
from kiloworlds.networks.mlp import Linear

_LAYERS = ((8, 4), (4, 2), (3, 1))
"""Kernel and stride of each convolution."""
_LAYERS_OF_SMALL_IMAGES = ((6, 3), (4, 2), (3, 1))
"""Below `_SMALL_IMAGE` pixels the others would leave next to nothing: one place of 42 x 42."""
_SMALL_IMAGE = 64
SMALLEST_IMAGE = 27
"""Height and width, in pixels, below which the three convolutions leave nothing."""


def image_shape(space: Space) -> tuple[int, int, int]:
    """Height, width and channels of the images of a space.

    Frames `[frames, height, width]` are channels; so are the colours of every frame in
    `[frames, height, width, 3]`, and those of a single image `[height, width, 3]`.

    Raises:
        InvalidValueError: other spaces, or images that are too small for the network.
    """
    shape = space.shape if isinstance(space, Box) and space.dtype == np.uint8 else ()
    if len(shape) == 3 and shape[2] in (1, 3):
        height, width, channels = shape
    elif len(shape) == 3:
        channels, height, width = shape
    elif len(shape) == 4:
        frames, height, width, colours = shape
        channels = frames * colours
    else:
        raise InvalidValueError(
            f"network='cnn' needs images of uint8, such as [4, 84, 84]; the observations are {space}. "
            "Use network='mlp'."
        )
    if min(height, width) < SMALLEST_IMAGE:
        raise InvalidValueError(
            f"network='cnn' needs images of {SMALLEST_IMAGE} x {SMALLEST_IMAGE} pixels or more, not "
            f"{height} x {width}; use larger ones or network='mlp'."
        )
    return height, width, channels


def fits(space: Space) -> bool:
    """Whether the network can read observations of a space."""
    try:
        image_shape(space)
    except InvalidValueError:
        return False
    return True


def _channels_last(images: UInt8[Array, "N ..."]) -> UInt8[Array, "N height width channels"]:
    """Images as `image_shape` counts them."""
    if images.ndim == 5:
        moved = jnp.moveaxis(images, 1, 3)
        return moved.reshape(*moved.shape[:3], -1)
    return images if images.shape[3] in (1, 3) else jnp.moveaxis(images, 1, 3)


def _blocks(
    images: Shaped[Array, "N height width channels"], size: int
) -> Shaped[Array, "N rows columns pixels"]:
    """Cuts images into squares of `size` pixels, each then one vector."""
    count, height, width, channels = images.shape
    squares = images.reshape(count, height // size, size, width // size, size, channels)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(
        count, height // size, width // size, size * size * channels
    )


def patches(
    images: Shaped[Array, "N height width channels"], kernel: int, stride: int
) -> Shaped[Array, "N rows columns patch"]:
    """What a convolution without padding sees at each of its places.

    Args:
        kernel: width of a patch in pixels, a multiple of `stride`.
    """
    rows, columns = ((size - kernel) // stride + 1 for size in images.shape[1:3])
    seen = images[:, : (rows - 1) * stride + kernel, : (columns - 1) * stride + kernel]
    blocks, per_patch = _blocks(seen, stride), kernel // stride
    return jnp.concatenate(
        [
            blocks[:, row : row + rows, column : column + columns]
            for row in range(per_patch)
            for column in range(per_patch)
        ],
        axis=-1,
    )


def _by_patches(
    images: Shaped[Array, "N height width channels"],
    weight: Float[Array, "patch outputs"],
    kernel: int,
    stride: int,
) -> Float[Array, "N rows columns outputs"]:
    """A convolution as one product of the patches with the weights."""
    seen = patches(images, kernel, stride)
    rows = seen.reshape(-1, seen.shape[-1]).astype(weight.dtype)
    return (rows @ weight).reshape(*seen.shape[:3], -1)


def _by_squares(
    images: Shaped[Array, "N height width channels"],
    weight: Float[Array, "patch outputs"],
    kernel: int,
    stride: int,
) -> Float[Array, "N rows columns outputs"]:
    """The same as one product of the squares with what each place of a patch makes of them, summed.

    A square is written once, not once for every patch it is in.
    """
    height, width = (size // stride for size in images.shape[1:3])
    blocks = _blocks(images[:, : height * stride, : width * stride], stride)
    per_patch = kernel // stride
    places, outputs = per_patch**2, weight.shape[1]
    each_place = (
        weight.reshape(places, -1, outputs).transpose(1, 0, 2).reshape(-1, places * outputs)
    )
    squares = blocks.reshape(-1, blocks.shape[-1]).astype(weight.dtype)
    products = (squares @ each_place).reshape(-1, height, width, places, outputs)
    rows, columns = height - per_patch + 1, width - per_patch + 1
    return functools.reduce(
        jnp.add,
        (
            products[:, row : row + rows, column : column + columns, row * per_patch + column]
            for row in range(per_patch)
            for column in range(per_patch)
        ),
    )


class Convolution(eqx.Module):
    """A convolution without padding; its weights are a matrix whose rows are ordered as `patches`."""

    weight: Float[Array, "patch outputs"]
    bias: Float[Array, " outputs"]
    kernel: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], inputs: int, outputs: int, kernel: int, stride: int):
        self.weight = orthogonal(key, (kernel * kernel * inputs, outputs), 2**0.5)
        self.bias = jnp.zeros(outputs)
        self.kernel, self.stride = kernel, stride

    def __call__(
        self, images: Shaped[Array, "N height width channels"]
    ) -> Float[Array, "N rows columns outputs"]:
        # Bytes are scaled to [0, 1] by way of the weights, of which there are fewer.
        weight = self.weight / 255 if images.dtype == jnp.uint8 else self.weight
        # Measured (docs/pixels.md): with nine squares in a patch their products are more to write
        # than the patches.
        convolve = _by_squares if self.kernel == 2 * self.stride else _by_patches
        return convolve(images, weight, self.kernel, self.stride) + self.bias


class ImageEncoder(eqx.Module):
    """Three convolutions and a dense layer, each followed by a ReLU.

    Args:
        space: the images; see `image_shape`.
        channels: outputs of the three convolutions (kernels 8, 4, 3; strides 4, 2, 1; for images
            below 64 pixels kernels 6, 4, 3; strides 3, 2, 1).
        features: width of the result.

    Raises:
        InvalidValueError: a space without images.
    """

    convolutions: tuple[Convolution, ...]
    dense: Linear
    axes: int = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], space: Space, channels: tuple[int, ...], features: int):
        height, width, inputs = image_shape(space)
        shapes = _LAYERS_OF_SMALL_IMAGES if min(height, width) < _SMALL_IMAGE else _LAYERS
        keys = jax.random.split(key, len(shapes) + 1)
        layers = []
        for index, (kernel, stride) in enumerate(shapes):
            layers.append(Convolution(keys[index], inputs, channels[index], kernel, stride))
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            inputs = channels[index]
        self.convolutions = tuple(layers)
        self.dense = Linear(keys[-1], height * width * inputs, features, 2**0.5)
        self.axes = len(getattr(space, "shape", ()))

    def __call__(self, images: UInt8[Array, "..."]) -> Float[Array, "*B features"]:
        batch = images.shape[: images.ndim - self.axes]
        hidden: Any = _channels_last(images.reshape(-1, *images.shape[len(batch) :]))
        for convolution in self.convolutions:
            hidden = jax.nn.relu(convolution(hidden))
        features = jax.nn.relu(self.dense(hidden.reshape(hidden.shape[0], -1)))
        return features.reshape(*batch, -1)
