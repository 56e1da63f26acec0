"""Worker: jaxmarl, random legal actions in one compiled scan over environments stepped by `vmap`.

The package resets by itself where an episode ends (its `step`). Actions are drawn for the whole batch
at once: one number for each agent, which chooses among the actions that its mask allows. That is
faster than a key for each environment and agent, and than `jax.random.categorical`.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import jaxmarl
from harness import AbsentError, repeat_with_seeds, serve
from jaxmarl.environments.smax import map_name_to_scenario

# Our ids, and what the package calls them.
NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "mpe/simple_spread_v3": ("MPE_simple_spread_v3", {}),
    "mpe/simple_reference_v3": ("MPE_simple_reference_v3", {}),
    "mpe/simple_tag_v3": ("MPE_simple_tag_v3", {}),
    "overcooked/cramped_room": ("overcooked", {}),  # its default layout
    "hanabi/full-2p": ("hanabi", {}),
    "coin_game": ("coin_game", {}),
    "switch_riddle": ("switch_riddle", {}),
    "smax/3m": ("HeuristicEnemySMAX", {"map": "3m"}),
    "smax/27m_vs_30m": ("HeuristicEnemySMAX", {"map": "27m_vs_30m"}),
}


def build(env_id: str, **settings: Any) -> Any:
    """The package's environment of one of our ids."""
    if env_id not in NAMES:
        raise AbsentError(f"jaxmarl has no {env_id}")
    name, fixed = NAMES[env_id]
    settings = fixed | settings
    if "map" in settings:
        settings["scenario"] = map_name_to_scenario(settings.pop("map"))
    return jaxmarl.make(name, **settings)


def make(env: str, num_envs: int, steps: int, seconds: float):
    environment = build(env)
    agents = environment.agents
    num_actions = environment.action_space(agents[0]).n
    reset, step = jax.vmap(environment.reset), jax.vmap(environment.step)
    if env.startswith("smax/"):
        masks = jax.vmap(environment.get_avail_actions)
    elif env.startswith("hanabi/"):
        masks = jax.vmap(environment.get_legal_moves)
    else:
        masks = None  # every action is legal

    def draw(key, state):
        numbers = jax.random.uniform(key, (num_envs, len(agents)))
        if masks is None:
            actions = (numbers * num_actions).astype(jnp.int32)
        else:
            legal = masks(state)
            order = jnp.cumsum(jnp.stack([legal[agent] for agent in agents], 1) > 0, axis=-1)
            chosen = (numbers * order[..., -1]).astype(jnp.int32)
            actions = jnp.argmax(order > chosen[..., None], axis=-1)
        return {agent: actions[:, index] for index, agent in enumerate(agents)}

    def seen(observation):
        """Without what only central critics see (SMAX's "world_state"), which is then not made."""
        return {agent: observation[agent] for agent in agents}

    def rollout(key):
        key, reset_key = jax.random.split(key)
        _, state = reset(jax.random.split(reset_key, num_envs))

        def body(carry, _):
            key, state, _ = carry
            key, action_key, step_key = jax.random.split(key, 3)
            step_keys = jax.random.split(step_key, num_envs)
            observation, state, reward, done, _ = step(step_keys, state, draw(action_key, state))
            return (key, state, (seen(observation), reward, done)), None

        # Some states begin with other types than they go on with.
        shapes = jax.eval_shape(lambda *carry: body(carry, None)[0], key, state, None)
        state = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, shapes[1])
        batch = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes[2])
        (_, _, batch), _ = jax.lax.scan(body, (key, state, batch), None, length=steps)
        return batch

    start = time.perf_counter()
    compiled = jax.jit(rollout).lower(jax.random.PRNGKey(0)).compile()
    compile_seconds = time.perf_counter() - start

    def run(seed: int) -> None:
        jax.block_until_ready(compiled(jax.random.PRNGKey(seed)))

    facts = {"compile_seconds": compile_seconds}
    return repeat_with_seeds(seconds, run, steps * num_envs), facts


if __name__ == "__main__":
    serve(make, ["jaxmarl", "jax", "jaxlib"])
