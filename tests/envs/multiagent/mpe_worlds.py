"""mpe2's environments, put into the states of ours."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.world import ParticleState, Vector

EPISODES, STEPS = 36, 4
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


def make_theirs(name: str, **kwargs: Any) -> Any:
    """mpe2's parallel environment, never cut off."""
    module = importlib.import_module(f"mpe2.{name}")
    theirs = module.parallel_env(max_cycles=10**9, **kwargs)
    theirs.reset(seed=0)
    return theirs


def rollout(env: ParticleEnvironment) -> list[tuple[Any, Any, Any, Any]]:
    """States, actions, next states and steps `[EPISODES, ...]` of random episodes, `STEPS` of them.

    A third of them starts so close together that all bump into each other, a third so far apart that
    agents are outside.
    """
    keys = jax.random.split(fast_key(7), EPISODES)
    scale = jnp.asarray([1.0, 0.25, 1.4])[jnp.arange(EPISODES) % 3]
    start, step = jax.vmap(env._start), jax.vmap(env.step)
    if not isinstance(jax.eval_shape(env._start, keys[0]).positions, tuple):
        # Few bodies are faster one operation after the other than compiled; the loop over many is not.
        options = {"xla_backend_optimization_level": 0}
        start, step = (jax.jit(part, compiler_options=options) for part in (start, step))
    state = start(keys)
    state = jax.tree.map(
        lambda leaf: leaf * scale.reshape(-1, *[1] * (leaf.ndim - 1)), state
    )._replace(messages=state.messages, goals=state.goals)
    seen = []
    for index in range(STEPS):
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
        actions = jax.vmap(env.action_space.sample)(keys)
        following, result = step(keys, state, actions)
        seen.append(jax.tree.map(np.asarray, (state, actions, following, result)))
        state = following
    return seen


def put(state: ParticleState, theirs: Any) -> None:
    """Sets mpe2's world to one of our states."""
    if not theirs.agents:  # the last episode has ended
        theirs.reset()
    world = theirs.unwrapped.world
    movers = [agent for agent in world.agents if agent.movable]
    for agent, position, velocity in zip(movers, state.positions, state.velocities, strict=True):
        agent.state.p_pos = np.array([position.x, position.y], np.float64)
        agent.state.p_vel = np.array([velocity.x, velocity.y], np.float64)
    speakers = [agent for agent in world.agents if not agent.silent]
    for agent, message in zip(speakers, state.messages, strict=True):
        agent.state.c = np.array(message, np.float64)
    if state.landmarks:
        for landmark, point in zip(world.landmarks, state.landmarks, strict=True):
            landmark.state.p_pos = np.array([point.x, point.y], np.float64)
    put_goals(world, [world.landmarks[int(goal)] for goal in state.goals], theirs)


def put_goals(world: Any, goals: list[Any], theirs: Any) -> None:
    """Sets whatever a task of mpe2 keeps of its goals."""
    name = theirs.unwrapped.metadata["name"]
    if name == "simple_reference_v3":
        for agent, goal in zip(world.agents, goals, strict=True):
            agent.goal_b = goal
    elif name == "simple_speaker_listener_v4":
        world.agents[0].goal_b = goals[0]
    elif name == "simple_crypto_v3":
        world.agents[2].key = goals[1].color
    elif name == "simple_push_v3":
        color = np.array([0.25, 0.25, 0.25])
        color[1 + goals[0].index] += 0.5
        world.agents[1].color = color
    if name in ("simple_adversary_v3", "simple_push_v3", "simple_crypto_v3"):
        for agent in world.agents:
            agent.goal_a = goals[0]


def at(tree: Any, episode: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[episode], tree)


def by_agent(env: ParticleEnvironment, value: Any) -> dict[str, np.ndarray]:
    """Blocks of kinds as one entry for each agent."""
    blocks = value if isinstance(value, dict) else {env.kinds[0].name: value}
    return {
        agent: blocks[kind.name][index]
        for kind in env.kinds
        for index, agent in enumerate(kind.agents)
    }


def check_parity(
    env: ParticleEnvironment, theirs: Any, watch: Callable[[Any, Any], None] | None = None
) -> None:
    """Every step of random episodes has mpe2's positions, velocities, messages, observations, rewards.

    Args:
        watch: called with our step and mpe2's terminations after each step; if None, none may end.
    """
    assert list(theirs.possible_agents) == list(env.possible_agents)
    ours, expected = [], []
    for states, actions, followings, steps in rollout(env):
        for episode in range(EPISODES):
            put(at(states, episode), theirs)
            action = by_agent(env, at(actions, episode))
            following, step = at(followings, episode), at(steps, episode)
            observations, rewards, terminations, _, _ = theirs.step(action)
            ours.append(_numbers(following, by_agent(env, step.observation), step.reward))
            rewards = [rewards[agent] for agent in env.possible_agents]
            expected.append(_numbers(read(theirs, following), observations, rewards))
            if watch is not None:
                watch(step, terminations)
            else:
                assert not step.terminated
                assert not any(terminations.values())
    np.testing.assert_allclose(np.stack(ours), np.stack(expected), **TOLERANCE)


def _numbers(state: ParticleState, observations: dict[str, Any], rewards: Any) -> np.ndarray:
    moving = (tuple(state.positions), tuple(state.velocities))
    parts = jax.tree.leaves((moving, state.messages))
    parts += [observations[agent] for agent in sorted(observations)]
    return np.concatenate([np.ravel(part) for part in [*parts, rewards]])


def read(theirs: Any, like: ParticleState) -> ParticleState:
    """What changes in mpe2's world, as one of our states."""
    agents = theirs.unwrapped.world.agents
    # Our state holds only what can be observed.
    movers = [agent for agent in agents if agent.movable] if like.positions else []
    return like._replace(
        positions=tuple(Vector(*agent.state.p_pos) for agent in movers),
        velocities=tuple(Vector(*agent.state.p_vel) for agent in movers),
        messages=tuple(tuple(agent.state.c) for agent in agents if not agent.silent),
    )
