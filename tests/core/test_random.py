"""Statistical quality of the fast keys. Seeds are fixed: each check is always right or wrong."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import define_prng_impl
from scipy import stats

from kiloworlds.core import random as fast
from kiloworlds.core.random import FAST_IMPL, fast_key, permutation, random_index
from kiloworlds.testing.distributions import matches_probabilities

COUNT = 1 << 20
LEVEL = 1e-5  # of each p-value; the battery has about 150


def _two_sided(p_value):
    """Too even is as suspicious as too uneven."""
    return 2 * min(p_value, 1 - p_value)


def _uniform(values, cells):
    """The chi-square p-value of integers below `cells` being uniform."""
    return _two_sided(stats.chisquare(np.bincount(values, minlength=cells)).pvalue)


def _battery(words):
    """P-values of uint32 `words` being independent and uniform."""
    count = len(words)
    p_values = {}
    signs = np.unpackbits(words.view(np.uint8).reshape(count, 4), axis=1).astype(np.float32) * 2 - 1
    balance = signs.sum(0) ** 2 / count
    p_values["balance of bits"] = _two_sided(stats.chi2(32).sf(balance.sum()))
    for byte in range(4):
        p_values[f"byte {byte}"] = _uniform((words >> (8 * byte)) & 0xFF, 256)
    centred = words / 2**32 - 0.5
    for lag in (1, 2, 3, 8, 1024):
        correlation = 12 * (centred[lag:] @ centred[:-lag]) / np.sqrt(count - lag)
        p_values[f"serial correlation at {lag}"] = 2 * stats.norm.sf(abs(correlation))
        # Every bit against every bit of the later word.
        products = signs[lag:].T @ signs[:-lag] / np.sqrt(count - lag)
        p_values[f"bits at {lag}"] = _two_sided(stats.chi2(1024).sf((products**2).sum()))
    first, second = words[0::2], words[1::2]
    p_values["upper bits in 2-D"] = _uniform((first >> 26) * 64 + (second >> 26), 4096)
    p_values["lower bits in 2-D"] = _uniform((first & 63) * 64 + (second & 63), 4096)
    for exponent in range(16, count.bit_length()):
        size = 1 << exponent
        repeats = size - len(np.unique(words[:size]))
        expected = stats.poisson(size**2 / 2**33)
        likelier = min(expected.cdf(repeats), expected.sf(repeats - 1))
        p_values[f"collisions of 2^{exponent}"] = min(1.0, 2 * likelier)
    return p_values


def _first_words(keys):
    return jax.vmap(jax.random.bits)(keys)


def _fold_in_all(key, data):
    return jax.vmap(jax.random.fold_in, (None, 0))(key, data)


def _grid(impl):
    """The word that key i draws at step t, `[1024, 1024]`, as a vector of environments draws."""
    keys = _fold_in_all(jax.random.key(3, impl=impl), jnp.arange(1024, dtype=jnp.uint32))
    steps = 2 * jnp.arange(1024, dtype=jnp.uint32)
    return jax.vmap(lambda key: _first_words(_fold_in_all(key, steps)))(keys)


def _parent_and_children(impl):
    """Draws of 2^18 parents, each beside those of its two split children and one folded child."""

    def family(key):
        left, right = jax.random.split(key)
        folded = jax.random.fold_in(key, 0)
        return jnp.stack([jax.random.bits(one) for one in (key, left, right, folded)])

    return jax.vmap(family)(jax.random.split(jax.random.key(4, impl=impl), COUNT // 4)).ravel()


STREAMS = {
    "one key": lambda impl: jax.random.bits(jax.random.key(0, impl=impl), (COUNT,)),
    "split": lambda impl: _first_words(jax.random.split(jax.random.key(1, impl=impl), COUNT)),
    "split in pairs": lambda impl: _first_words(
        jax.vmap(jax.random.split)(
            jax.random.split(jax.random.key(5, impl=impl), COUNT // 2)
        ).ravel()
    ),
    "fold_in of consecutive integers": lambda impl: _first_words(
        _fold_in_all(jax.random.key(2, impl=impl), jnp.arange(COUNT, dtype=jnp.uint32))
    ),
    "consecutive seeds": lambda impl: _first_words(
        jax.vmap(lambda seed: jax.random.key(seed, impl=impl))(jnp.arange(COUNT, dtype=jnp.uint32))
    ),
    "two words of consecutive seeds": lambda impl: jax.vmap(
        lambda seed: jax.random.bits(jax.random.key(seed, impl=impl), (2,))
    )(jnp.arange(COUNT // 2, dtype=jnp.uint32)).ravel(),
    "parents and children": _parent_and_children,
    "environments, step by step": lambda impl: _grid(impl).T.ravel(),
    "steps, environment by environment": lambda impl: _grid(impl).ravel(),
}


USED_MOST = ("one key", "split", "parents and children", "environments, step by step")


def _failures(impl, streams=STREAMS):
    failures = {}
    for stream in streams:
        words = np.asarray(jax.jit(STREAMS[stream], static_argnums=0)(impl))
        p_values = _battery(words)
        failures |= {(stream, name): p for name, p in p_values.items() if p < LEVEL}
    return failures


# The others of a kind with `-m slow`.
@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(stream, marks=() if stream in USED_MOST else pytest.mark.slow)
        for stream in STREAMS
    ],
)
def test_words_look_independent_and_uniform(stream):
    assert _failures(FAST_IMPL, [stream]) == {}


def _impl(name, **replaced):
    rules = {
        "seed": fast._seed,
        "split": fast._split,
        "random_bits": fast._random_bits,
        "fold_in": fast._fold_in,
    }
    return define_prng_impl(key_shape=(2,), name=name, tag=name, **(rules | replaced))


def _counter(key, shape):
    steps = jax.lax.iota(jnp.uint32, int(np.prod(shape))).reshape(shape)
    return key[0] + steps * fast._GOLDEN


def _xorshift(word):
    """Marsaglia's, linear in the bits."""
    word = word ^ (word << np.uint32(13))
    word = word ^ (word >> np.uint32(17))
    return word ^ (word << np.uint32(5))


BAD = {
    "a counter, far too even": (
        {"random_bits": lambda key, _, shape: _counter(key, shape)},
        ("one key", "byte 3"),
    ),
    "linear in the bits": (
        {"random_bits": lambda key, _, shape: _xorshift(_counter(key, shape))},
        ("one key", "bits at 1"),
    ),
    "each word once, so that only collisions are missing": (
        {"random_bits": lambda key, _, shape: fast._mix(_counter(key, shape))},
        ("one key", "collisions of 2^20"),
    ),
    "streams that are shifted copies of each other": (
        {"fold_in": lambda key, data: key.at[0].add(data.astype(jnp.uint32) * fast._GOLDEN)},
        ("steps, environment by environment", "collisions of 2^20"),
    ),
    "fold_in without effect": (
        {"fold_in": lambda key, data: key},
        ("parents and children", "collisions of 2^20"),
    ),
}


@pytest.mark.parametrize(
    "bad", [list(BAD)[-1], *(pytest.param(b, marks=pytest.mark.slow) for b in list(BAD)[:-1])]
)
def test_the_battery_finds_a_bad_generator(bad):
    replaced, found_by = BAD[bad]
    assert found_by in _failures(_impl(bad, **replaced), [found_by[0]])


def _raw_bits(first, second):
    key = jax.random.wrap_key_data(jnp.stack([first, second]), impl=FAST_IMPL)
    return jax.random.bits(key)


AVALANCHES = {
    "first key word": lambda a, b: _raw_bits(a, b),
    "second key word": lambda a, b: _raw_bits(b, a),
    "counter": lambda a, b: fast._bits(jnp.stack([b + a * fast._GOLDEN, b]), ()),
    "seed": lambda a, b: jax.random.bits(fast_key(a)),
    "fold_in": lambda a, b: jax.random.bits(jax.random.fold_in(_key(b, b), a)),
    "key before fold_in": lambda a, b: jax.random.bits(jax.random.fold_in(_key(b, a), b)),
    "key before split": lambda a, b: jax.random.bits(jax.random.split(_key(a, b))[1]),
}


def _key(first, second):
    return jax.random.wrap_key_data(jnp.stack([first, second]), impl=FAST_IMPL)


def _worst_flip_rate(function, count=1 << 14):
    """The largest deviation, in standard errors, of an output bit's flip rate from one half."""
    inputs = jax.random.bits(jax.random.key(0), (2, count))

    @jax.jit
    def flips(bit):
        one = jax.vmap(function)(inputs[0], inputs[1])
        other = jax.vmap(function)(inputs[0] ^ (jnp.uint32(1) << bit), inputs[1])
        changed = (one ^ other)[:, None] >> jnp.arange(32, dtype=jnp.uint32) & 1
        return changed.mean(0, dtype=jnp.float32)

    rates = np.array([flips(jnp.uint32(bit)) for bit in range(32)])
    return np.abs(rates - 0.5).max() * 2 * np.sqrt(count)


@pytest.mark.parametrize("place", AVALANCHES)
def test_flipping_any_input_bit_flips_every_output_bit_half_the_time(place):
    # Of 1,024 normal deviates one exceeds 5.2 with probability 2e-4.
    assert _worst_flip_rate(AVALANCHES[place]) < 5.2


def test_the_avalanche_check_finds_a_weak_mixer():
    assert _worst_flip_rate(lambda a, b: (a ^ (a >> 16)) * np.uint32(0x21F0AAAD)) > 50


@functools.cache
def _many_keys():
    root = fast_key(0)
    families = [
        jax.random.split(root, 1 << 16),
        _fold_in_all(root, jnp.arange(1 << 16, dtype=jnp.uint32)),
        jax.vmap(fast_key)(jnp.arange(1 << 16, dtype=jnp.uint32)),
    ]
    return np.concatenate([jax.random.key_data(keys) for keys in families])


def test_keys_do_not_repeat():
    keys = _many_keys()
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_loop_vmap_and_jit_draw_the_same():
    keys = jax.random.split(fast_key(7), 8)
    looped = np.stack([jax.random.normal(keys[i], (3,)) for i in range(8)])
    batched = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    # The bits are the same; how XLA computes normal numbers from them may differ in the last one.
    np.testing.assert_allclose(looped, batched, rtol=1e-6)
    bits = [jax.random.bits(jax.random.fold_in(keys[i], i)) for i in range(8)]
    batched = jax.jit(jax.vmap(lambda key, i: jax.random.bits(jax.random.fold_in(key, i))))
    np.testing.assert_array_equal(bits, batched(keys, jnp.arange(8)))
    np.testing.assert_array_equal(
        jax.random.key_data(jnp.stack([fast_key(i) for i in range(4)])),
        jax.random.key_data(jax.vmap(fast_key)(jnp.arange(4))),
    )


def test_words_depend_on_their_place_and_not_on_how_many_are_drawn():
    key = fast_key(0)
    np.testing.assert_array_equal(
        jax.random.bits(key, (5,)), jax.random.bits(key, (2, 4)).ravel()[:5]
    )


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint16, jnp.uint32])
def test_bits_of_every_width_are_uniform(dtype):
    words = np.asarray(jax.random.bits(fast_key(8), (1 << 18,), dtype))
    assert words.dtype == dtype
    assert _uniform(words & 0xFF, 256) > LEVEL
    assert _uniform(words >> (8 * words.itemsize - 8), 256) > LEVEL


def test_64_bit_words_use_two_words():
    with jax.enable_x64(True):
        words = np.asarray(jax.random.bits(fast_key(8), (1 << 16,), jnp.uint64))
        assert np.asarray(jax.random.key_data(fast_key(1 << 32))).tolist() != [
            *jax.random.key_data(fast_key(0)).tolist()
        ]
    assert words.dtype == np.uint64
    halves = words.view(np.uint32)
    assert all(p_value > LEVEL for p_value in _battery(halves).values())


def test_normal_and_uniform_have_their_distributions():
    key = fast_key(9)
    assert stats.kstest(jax.random.normal(key, (100_000,)), "norm").pvalue > 1e-3
    assert stats.kstest(jax.random.uniform(key, (100_000,)), "uniform").pvalue > 1e-3
    pairs = np.asarray(jax.random.normal(key, (100_000, 2)))
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 4 / np.sqrt(100_000)


def test_categorical_has_its_probabilities():
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    keys = jax.random.split(fast_key(10), 50_000)
    draws = jax.vmap(lambda key: jax.random.categorical(key, jnp.log(probabilities)))(keys)
    assert matches_probabilities(draws, dict(enumerate(probabilities))) > 1e-3


@pytest.mark.parametrize(
    "shuffle",
    [lambda key: jax.random.permutation(key, 4), lambda key: permutation(key, 4)],
    ids=["jax", "swap-or-not"],
)
def test_every_permutation_is_equally_likely(shuffle):
    orders = jax.jit(jax.vmap(shuffle))(jax.random.split(fast_key(11), 48_000))
    expected = dict.fromkeys(itertools.permutations(range(4)), 1 / 24)
    assert matches_probabilities(orders, expected) > 1e-3


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1 << 14])
def test_a_permutation_holds_every_index_once(size):
    order = np.asarray(permutation(fast_key(size), size))
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_a_large_permutation_keeps_neither_places_nor_neighbours():
    size = 1 << 14
    order = np.asarray(permutation(fast_key(12), size)).astype(np.int64)
    # Fixed points and kept neighbours are nearly Poisson(1) in a random order.
    assert (order == np.arange(size)).sum() <= 8
    assert (np.diff(order) == 1).sum() <= 8
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 4 / np.sqrt(size)


@pytest.mark.parametrize("n", [1, 2, 3, 13, 300, 1000, 1 << 16])
def test_an_index_is_uniform(n):
    draws = np.asarray(random_index(fast_key(n), n, (1 << 18,)))
    assert draws.dtype == np.int32
    assert draws.min() >= 0
    assert draws.max() < n
    assert matches_probabilities(draws, dict.fromkeys(range(n), 1 / n)) > 1e-3


@pytest.mark.parametrize("n", [0, (1 << 16) + 1])
def test_an_index_out_of_range_is_refused(n):
    with pytest.raises(ValueError, match="n must be 1 to 65536"):
        random_index(fast_key(0), n)


@pytest.mark.parametrize("seed", [-1, 0, 2**31 - 1, np.int64(5), jnp.uint32(7)])
def test_any_integer_is_a_seed(seed):
    assert jax.random.uniform(fast_key(seed)) < 1.0
