"""Fast random keys: a counter-based hash behind the unchanged `jax.random` API.

JAX's default generator (Threefry, Salmon et al. 2011) is built for cryptographic-style guarantees
and costs more than a whole step of a small environment. `fast_key` gives keys whose bits come from
two rounds of a 32-bit multiply-xorshift hash in counter mode: every draw is a handful of integer
operations that vectorise on CPU and GPU. The constants are those of the two-multiply mixer with the
lowest known bias (C. Wellons, "hash-prospector", 2018-2022).

It is a simulation generator, not a cryptographic one. Its quality is tested in
`tests/core/test_random.py` (uniformity, independence of split and fold_in, avalanche). Pass
`jax.random.key(seed)` wherever a key is taken to use Threefry instead.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl
from jaxtyping import Array, ArrayLike, Int, Key, UInt32

_GOLDEN = np.uint32(0x9E3779B9)  # 2^32 / golden ratio: consecutive counters land far apart
_SEED_SALT = np.uint32(0x7F4A7C15)
_FOLD_SALT = np.uint32(0x85EBCA6B)

MOST_INDICES = 1 << 16  # of `random_index`: for more, its bias is no longer negligible


def _mix(word: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of 32-bit words in which every input bit flips each output bit half the time."""
    word = (word ^ (word >> np.uint32(16))) * np.uint32(0x21F0AAAD)
    word = (word ^ (word >> np.uint32(15))) * np.uint32(0x735A2D97)
    return word ^ (word >> np.uint32(15))


def _bits(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Word i of the stream of `key`.

    The counter is added back at the end (Davies-Meyer) so that the stream is not a permutation:
    a permutation never repeats a word, which a large sample of true random words does.
    """
    count = int(np.prod(shape))
    counter = key[0] + jax.lax.iota(jnp.uint32, count).reshape(shape) * _GOLDEN
    return _mix(_mix(counter) ^ key[1]) + counter


def _seed(seed: Int[Array, ""]) -> UInt32[Array, "2"]:
    seed = jnp.asarray(seed)
    low = seed.astype(jnp.uint32)
    # A 64-bit seed (only under jax_enable_x64) keeps its upper half.
    high = (seed >> 32).astype(jnp.uint32) if seed.dtype.itemsize > 4 else jnp.zeros_like(low)
    first = _mix(low * _GOLDEN + _SEED_SALT) ^ _mix(high + _GOLDEN)
    return jnp.stack([first, _mix(first ^ _FOLD_SALT) + low])


def _split(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "... 2"]:
    # A second, salted stream: keys split from `key` never share words with draws from `key`.
    return _bits(key ^ _SEED_SALT, (*shape, 2))


def _fold_in(key: UInt32[Array, "2"], data: UInt32[Array, ""]) -> UInt32[Array, "2"]:
    first = _mix(key[0] ^ _mix(data.astype(jnp.uint32) * _GOLDEN + _FOLD_SALT))
    return jnp.stack([first, _mix(key[1] + first)])


def _random_bits(
    key: UInt32[Array, "2"], bit_width: int, shape: tuple[int, ...]
) -> UInt32[Array, "..."]:
    if bit_width == 64:
        words = _bits(key, (*shape, 2)).astype(jnp.uint64)
        return (words[..., 0] << np.uint64(32)) | words[..., 1]
    if bit_width == 32:
        return _bits(key, shape)
    # The upper bits of a multiplicative hash are its best.
    words = _bits(key, shape) >> np.uint32(32 - bit_width)
    return words.astype(jnp.dtype(f"uint{bit_width}"))


FAST_IMPL = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,  # type: ignore[arg-type]  # JAX passes an array where it declares int
    name="kiloworlds_fast",
    tag="kw",
)


def fast_key(seed: ArrayLike) -> Key[Array, ""]:
    """Makes a fast random key from an integer seed.

    Args:
        seed: an integer scalar; only its lowest 32 bits count unless `jax_enable_x64` is on.

    Returns:
        A typed key for every function of `jax.random`.

    Example:
        >>> import jax
        >>> from kiloworlds.core.random import fast_key
        >>> jax.random.uniform(fast_key(0), (2,)).shape
        (2,)
    """
    return jax.random.key(seed, impl=FAST_IMPL)


def permutation(key: Key[Array, ""], size: int) -> UInt32[Array, " size"]:
    """A random order of 0, 1, ..., `size` - 1, computed without sorting.

    The swap-or-not shuffle (Hoang, Morris & Rogaway 2012): in each round every position either
    keeps its value or swaps it with its mirror image about a random point, decided by a hash both
    share. Element-wise work only, several times faster on a CPU than sorting random words.
    """
    rounds = 24 + 2 * int(size).bit_length()
    pivots = jax.random.bits(key, (rounds, 2), jnp.uint32)
    count = np.uint32(size)

    def swap_or_not(position, pivot):
        mirror = (pivot[0] % count) + count - position
        mirror = jnp.where(mirror >= count, mirror - count, mirror)
        coin = _mix(jnp.maximum(position, mirror) ^ pivot[1]) >> np.uint32(31)
        return jnp.where(coin == 1, mirror, position), None

    position, _ = jax.lax.scan(swap_or_not, jnp.arange(size, dtype=jnp.uint32), pivots)
    return position


def random_index(key: Key[Array, ""], n: int, shape: tuple[int, ...] = ()) -> Int[Array, "..."]:
    """Draws integers 0 to `n` - 1 from one random word each.

    `jax.random.randint` draws two words and divides twice to serve any range. A multiplication and
    shifts cost a fraction of that, and no value is more than n^2 / 2^31 (relative) too likely.

    Args:
        n: how many values; at most `MOST_INDICES`.
        shape: shape of the result, int32.
    """
    if not 1 <= n <= MOST_INDICES:
        raise ValueError(f"random_index(n={n}): n must be 1 to {MOST_INDICES}.")
    spare = max((n - 1).bit_length(), 1)  # so that the product fits in 32 bits
    words = jax.random.bits(key, shape) >> np.uint32(spare)
    return ((words * np.uint32(n)) >> np.uint32(32 - spare)).astype(jnp.int32)
