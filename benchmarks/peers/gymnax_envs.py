"""Worker: gymnax, random actions in one compiled scan, as its documentation runs it."""

import time

import gymnax
import jax
import jax.numpy as jnp
from harness import AbsentError, repeat_with_seeds, serve


def make(env: str, num_envs: int, steps: int, seconds: float):
    try:
        environment, parameters = gymnax.make(env)
    except ValueError as error:
        raise AbsentError(f"gymnax: {error}") from error
    action_space = environment.action_space(parameters)
    reset = jax.vmap(environment.reset, in_axes=(0, None))
    step = jax.vmap(environment.step, in_axes=(0, 0, 0, None))
    sample = jax.vmap(action_space.sample)

    def rollout(key):
        key, reset_key = jax.random.split(key)
        observation, state = reset(jax.random.split(reset_key, num_envs), parameters)

        def body(carry, _):
            key, state, _ = carry
            key, action_key, step_key = jax.random.split(key, 3)
            actions = sample(jax.random.split(action_key, num_envs))
            step_keys = jax.random.split(step_key, num_envs)
            observation, state, reward, done, _ = step(step_keys, state, actions, parameters)
            return (key, state, (observation, reward, done)), None

        first = (observation, jnp.zeros(num_envs), jnp.zeros(num_envs, bool))
        # The first step fixes the types (some rewards are integers).
        (key, state, batch), _ = body((key, state, first), None)
        (_, _, batch), _ = jax.lax.scan(body, (key, state, batch), None, length=steps - 1)
        return batch

    start = time.perf_counter()
    compiled = jax.jit(rollout).lower(jax.random.key(0)).compile()
    compile_seconds = time.perf_counter() - start

    def run(seed: int) -> None:
        jax.block_until_ready(compiled(jax.random.key(seed)))

    facts = {"compile_seconds": compile_seconds}
    return repeat_with_seeds(seconds, run, steps * num_envs), facts


if __name__ == "__main__":
    serve(make, ["gymnax", "jax", "jaxlib"])
