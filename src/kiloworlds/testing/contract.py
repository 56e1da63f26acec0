"""The contract that every compiled environment meets."""

from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, PyTree

from kiloworlds.core.environment import Environment, MultiAgentEnvironment, Step
from kiloworlds.core.legal_actions import random_actions
from kiloworlds.core.random import fast_key
from kiloworlds.core.spaces import Space

_STEPS = 1000  # of the long rollout
_COPIES = 8  # environments side by side in it
_TOLERANCE = 1e-4  # between compilations, which may round differently


def check_environment(env: Environment, seed: int = 0) -> None:
    """Checks an environment against the contract of `Environment` or `MultiAgentEnvironment`.

    Spaces hold what is observed and their samples are accepted; equal keys give equal results, with
    and without `jax.jit` and `jax.vmap`; types and shapes never change from step to step, and one
    compilation serves all steps; a thousand random steps, past the end of episodes too, give no NaN;
    a time limit is kept; parameters can be batched; there is something to see. Of several agents, each
    has a legal action in every state, the dead stay dead, observe zeros and get no reward.

    Args:
        env: the environment, with its time limit if it has one.
        seed: of all keys used.

    Raises:
        AssertionError: the first point that does not hold, in a sentence.

    Example:
        >>> from kiloworlds.envs.classic.cartpole import CartPole
        >>> check_environment(CartPole())
    """
    key = fast_key(seed)
    for check in CHECKS.values():
        check(env, key)


def _check_types(env: Environment, key: Key[Array, ""]) -> None:
    """Structure, shapes and types of all that reset and step return, without running them."""
    state, observation = jax.eval_shape(env.reset, key)
    action = _of_space("action_space", env.action_space, key)
    try:
        next_state, step = jax.eval_shape(env.step, key, state, action)
    except Exception as error:
        raise AssertionError(
            f"step does not accept an action sampled from action_space, {_types(action)}: {error}"
        ) from error
    assert isinstance(step, Step), f"step returns {type(step).__name__}, not Step, as its second."
    _same_types("the state after a step and after reset", next_state, state)
    expected = _of_space("observation_space", env.observation_space, key)
    _same_types("reset's observation and observation_space", observation, expected)
    _same_types("step's observation and observation_space", step.observation, expected)
    agents = (env.num_agents,) if isinstance(env, MultiAgentEnvironment) else ()
    wanted = {"reward": (agents, jnp.float32), "terminated": ((), bool), "truncated": ((), bool)}
    for name, (shape, dtype) in wanted.items():
        kind = jax.ShapeDtypeStruct(shape, dtype)
        _same_types(f"{name} and its contract", getattr(step, name), kind)
    info = jax.eval_shape(env.reset_info, state)
    if info:
        _same_types("reset_info and Step.info", info, step.info)


def _check_determinism(env: Environment, key: Key[Array, ""]) -> None:
    # Without compiling every operation is a program of its own, so these two are short.
    first, second = (_rollout(env, key, env.reset, env.step, 2) for _ in range(2))
    _close("two runs with equal keys differ", first, second, tolerance=0.0)
    traces = 0

    def counted(*arguments):
        nonlocal traces
        traces += 1
        return env.step(*arguments)

    start, seen = _rollout(env, key, _compiled(env.reset), _compiled(counted), 4)
    _close("results with jax.jit and without differ", (start, seen[:2]), first)
    assert traces == 1, (
        f"step was compiled {traces} times for one sequence of steps: its state differs in (weak) "
        "type from reset's. Give constants their type, as in jnp.float32(0) or jnp.zeros_like(x)."
    )


def _check_batching(env: Environment, key: Key[Array, ""]) -> None:
    keys = jax.random.split(key, 3)

    def run(key):
        return _scanned_rollout(env, env.action_space, key)

    single = _compiled(run)
    each = [single(one) for one in keys]
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    _close("results with jax.vmap and in a loop differ", _compiled(jax.vmap(run))(keys), looped)
    _check_batched_parameters(env, keys[0], each[0])


def _check_batched_parameters(env: Environment, key: Key[Array, ""], single: PyTree) -> None:
    """That a batch of equal parameters gives what a single environment gave."""
    floats, rest = eqx.partition(env, eqx.is_inexact_array_like)
    three = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, *jnp.shape(leaf))), floats)

    def run(parameters, key):
        batched = eqx.combine(parameters, rest)
        # The space itself is of the host: it is read from the environment with single parameters.
        return _scanned_rollout(batched, env.action_space, key)

    try:
        results = _compiled(jax.vmap(run, (0, None), axis_size=3))(three, key)
    except Exception as error:
        raise AssertionError(
            f"the parameters cannot be batched (jax.vmap over the environment): {error}"
        ) from error
    expected = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, *leaf.shape)), single)
    _close("results with batched parameters and with single ones differ", results, expected)


def _check_long_rollout(env: Environment, key: Key[Array, ""]) -> None:
    limit = getattr(env, "max_episode_steps", None)
    length = max(_STEPS, 0 if limit is None else int(limit))
    observation_space, action_space = env.observation_space, env.action_space

    def advance(carry, step_key):
        before, over = carry
        step_key, action_key = jax.random.split(step_key)
        action = random_actions(action_space, _legal(env, before), action_key)
        state, step = env.step(step_key, before, action)
        inside = over | observation_space.contains(step.observation)
        agents = {what: over | right for what, right in _agents_keep(env, before, state, step)}
        over = over | step.terminated | step.truncated
        no_nan = ~_has_nan((state, step))
        return (state, over), (action_space.contains(action), inside, no_nan, over, agents)

    def rollout(key):
        reset_key, steps_key = jax.random.split(key)
        state, observation = env.reset(reset_key)
        start = observation_space.contains(observation)
        over = jnp.zeros((), bool)
        _, seen = jax.lax.scan(advance, (state, over), jax.random.split(steps_key, length))
        return start, seen

    start, seen = _compiled(jax.vmap(rollout))(jax.random.split(key, _COPIES))
    accepted, inside, no_nan, over, agents = jax.tree.map(np.asarray, seen)
    assert np.all(accepted), "action_space does not contain an action sampled from it."
    assert np.all(start), "observation_space does not contain reset's observation."
    assert np.all(inside), (
        f"observation_space does not contain the observation of step {_first(~inside)}."
    )
    assert np.all(no_nan), f"NaN after step {_first(~no_nan)} of random actions."
    for wrong, right in agents.items():
        assert np.all(right), f"{wrong} after step {_first(~right)} of random actions."
    if limit is not None:
        assert np.all(over[:, int(limit) - 1]), (
            f"an episode goes on after max_episode_steps={int(limit)} steps."
        )


def _agents_keep(
    env: Environment, before: PyTree, state: PyTree, step: Step
) -> Iterator[tuple[str, Bool[Array, ""]]]:
    """What may go wrong with several agents in a step, and whether it went right."""
    if not isinstance(env, MultiAgentEnvironment):
        return
    alive, was_alive = env.alive(state), env.alive(before)
    have_some = [mask.any(-1).all() for mask in jax.tree.leaves(_legal(env, state))]
    yield "an agent has no legal action", jnp.array(have_some, bool).all()
    yield "a dead agent is alive again within its episode", ~(alive & ~was_alive).any()
    goes_on = ~(step.terminated | step.truncated)
    yield "the episode goes on although no agent lives", alive.any() | ~goes_on
    blind = ~_seen_by_dead(env, alive, step.observation)
    yield "a dead agent observes something other than zeros", blind
    if env.team_reward:
        same = (step.reward == step.reward[0]).all()
        yield "team_reward is True, but agents get different rewards", same
    else:
        paid = ((step.reward != 0) & ~was_alive).any()
        yield "a dead agent gets a reward, and team_reward is False", ~paid


def _check_agents(env: Environment, key: Key[Array, ""]) -> None:
    """Structure, shapes and types of what is said of several agents."""
    if not isinstance(env, MultiAgentEnvironment):
        return
    state, _ = jax.eval_shape(env.reset, key)
    alive = jax.eval_shape(env.alive, state)
    _same_types("alive and its contract", alive, jax.ShapeDtypeStruct((env.num_agents,), bool))
    legal = jax.eval_shape(env.available_actions, state)
    if legal is not None:
        blocks = {
            kind.name: jax.ShapeDtypeStruct((len(kind.agents), kind.action_space.n), bool)  # type: ignore[attr-defined]
            for kind in env.kinds
        }
        expected = blocks if len(blocks) > 1 else next(iter(blocks.values()))
        _same_types("available_actions and the action spaces", legal, expected)
    space = env.global_state_space
    if space is not None:
        seen = jax.eval_shape(env.global_state, state)
        wanted = _of_space("global_state_space", space, key)
        _same_types("global_state and global_state_space", seen, wanted)
    names = env.possible_agents
    assert len(set(names)) == len(names), f"two agents have the same name: {names}."


def _seen_by_dead(env: MultiAgentEnvironment, alive: Array, observation: PyTree) -> Array:
    """Whether any dead agent observes something other than zeros."""
    first, seen = 0, []
    for kind in env.kinds:
        count = len(kind.agents)
        dead = ~alive[first : first + count]
        first += count
        block = observation if len(env.kinds) == 1 else observation[kind.name]
        for leaf in jax.tree.leaves(block):
            seen.append(((leaf.reshape(count, -1) != 0).any(-1) & dead).any())
    return jnp.stack(seen).any()


def _legal(env: Environment, state: PyTree) -> PyTree | None:
    return env.available_actions(state) if isinstance(env, MultiAgentEnvironment) else None


def _check_pictures(env: Environment, key: Key[Array, ""]) -> None:
    state, _ = env.reset(key)
    picture, text = env.render(state), env.describe(state)
    assert picture is not None or text is not None, "render and describe both return None."
    if picture is not None:
        picture = np.asarray(picture)
        is_rgb = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        assert is_rgb, f"render must give uint8 [height, width, 3], not {_types(picture)}."
    assert text is None or isinstance(text, str), (
        f"describe must give a string or None, not {type(text).__name__}."
    )


def _compiled(function: Callable) -> Callable:
    """Compiles with the parameters of an environment as constants, as the vectors do."""
    return jax.jit(lambda *arguments: function(*arguments))


def _rollout(
    env: Environment, key: Key[Array, ""], reset: Callable, step: Callable, length: int
) -> tuple[PyTree, list]:
    """Steps of sampled actions; returns the first observation and everything after it."""
    action_space = env.action_space
    state, first = reset(key)
    seen = []
    for i in range(length):
        step_key, action_key = jax.random.split(jax.random.fold_in(key, i))
        action = random_actions(action_space, _legal(env, state), action_key)
        state, result = step(step_key, state, action)
        seen.append((state, result))
    return first, seen


def _scanned_rollout(
    env: Environment, action_space: Space, key: Key[Array, ""]
) -> tuple[PyTree, tuple[PyTree, Step]]:
    """Four steps as one program, which compiles faster than four copies of a step."""

    def advance(state, i):
        step_key, action_key = jax.random.split(jax.random.fold_in(key, i))
        action = random_actions(action_space, _legal(env, state), action_key)
        state, result = env.step(step_key, state, action)
        return state, (state, result)

    state, first = env.reset(key)
    return first, jax.lax.scan(advance, state, jnp.arange(4))[1]


def _has_nan(tree: PyTree) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.any(jnp.stack([jnp.isnan(leaf).any() for leaf in leaves]))


def _first(wrong: np.ndarray) -> int:
    """The number of the earliest step at which any copy is wrong, counting from 1."""
    return int(np.argmax(wrong.any(axis=0))) + 1


def _of_space(name: str, space: Space, key: Key[Array, ""]) -> PyTree:
    assert isinstance(space, Space), f"{name} is a {type(space).__name__}, not a kiloworlds Space."
    return jax.eval_shape(space.sample, key)


def _types(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)


def _same_types(what: str, first: PyTree, second: PyTree) -> None:
    ours, theirs = _types(first), _types(second)
    same = jax.tree.structure(ours) == jax.tree.structure(theirs) and ours == theirs
    assert same, f"{what} differ in structure, shape or type: {ours} and {theirs}."


def _close(what: str, first: PyTree, second: PyTree, tolerance: float = _TOLERANCE) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(first)
    for (path, ours), theirs in zip(leaves, jax.tree.leaves(second), strict=True):
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        allowed = tolerance if ours.dtype.kind == "f" else 0.0
        agree = np.allclose(ours, theirs, rtol=allowed, atol=allowed, equal_nan=True)
        assert agree, f"{what} at {jax.tree_util.keystr(path)}: {ours} and {theirs}."


CHECKS: dict[str, Callable[[Environment, Key[Array, ""]], None]] = {
    "types": _check_types,
    "determinism": _check_determinism,
    "agents": _check_agents,
    "batching": _check_batching,
    "long rollout": _check_long_rollout,
    "pictures": _check_pictures,
}
"""The points of the contract by name, in the order in which they are checked."""
