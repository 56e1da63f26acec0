"""Worker: PPO on a gymnax environment in the manner of PureJaxRL, with its published settings.

One jit-compiled function trains from scratch: a scan over updates, each a scan over environment
steps, a reverse scan for the advantages, a scan over epochs and a scan over minibatches. Written for
this comparison from the published settings (C. Lu et al., "Discovered Policy Optimisation", 2022,
and the project's README), with the libraries it uses: jax, flax, optax, distrax, gymnax.
"""

import time
from typing import Any, NamedTuple

import distrax
import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from harness import serve
from peers.curves import summarise

EPOCHS, MINIBATCHES = 4, 4
DISCOUNT, TRACE = 0.99, 0.95
CLIP, ENTROPY_WEIGHT, VALUE_WEIGHT = 0.2, 0.01, 0.5
LEARNING_RATE, MAX_GRADIENT_NORM = 2.5e-4, 0.5


class Tower(nn.Module):
    """Two tanh layers of 64 units and a linear head."""

    outputs: int
    head_scale: float

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.tanh(nn.Dense(64, kernel_init=nn.initializers.orthogonal(np.sqrt(2)))(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(self.head_scale))(x)


class ActorCritic(nn.Module):
    num_actions: int

    @nn.compact
    def __call__(self, x):
        policy = distrax.Categorical(logits=Tower(self.num_actions, 0.01)(x))
        return policy, Tower(1, 1.0)(x)[..., 0]


class Transition(NamedTuple):
    observation: Any
    action: Any
    log_probability: Any
    value: Any
    reward: Any
    done: Any


class Statistics(NamedTuple):
    """Running return per environment, and that of the episode that ended last."""

    running: Any
    finished: Any


def make_train(env_id: str, num_envs: int, num_steps: int, total_steps: int):
    """Returns `train(key) -> (episode returns [updates, steps, envs], done flags)`."""
    num_updates = total_steps // (num_envs * num_steps)
    environment, parameters = gymnax.make(env_id)
    reset = jax.vmap(environment.reset, in_axes=(0, None))
    env_step = jax.vmap(environment.step, in_axes=(0, 0, 0, None))
    network = ActorCritic(environment.action_space(parameters).n)

    def learning_rate(count):
        return LEARNING_RATE * (1.0 - (count // (EPOCHS * MINIBATCHES)) / num_updates)

    optimiser = optax.chain(
        optax.clip_by_global_norm(MAX_GRADIENT_NORM), optax.adam(learning_rate, eps=1e-5)
    )

    def advantages(rollout: Transition, last_value):
        def backward(carry, transition):
            advantage, next_value = carry
            alive = 1.0 - transition.done
            error = transition.reward + DISCOUNT * next_value * alive - transition.value
            advantage = error + DISCOUNT * TRACE * alive * advantage
            return (advantage, transition.value), advantage

        start = (jnp.zeros_like(last_value), last_value)
        _, result = jax.lax.scan(backward, start, rollout, reverse=True, unroll=16)
        return result

    def loss(weights, batch: Transition, advantage, target):
        policy, value = network.apply(weights, batch.observation)
        clipped_value = batch.value + jnp.clip(value - batch.value, -CLIP, CLIP)
        value_loss = 0.5 * jnp.maximum((value - target) ** 2, (clipped_value - target) ** 2).mean()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = jnp.exp(policy.log_prob(batch.action) - batch.log_probability)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
        return VALUE_WEIGHT * value_loss - gain.mean() - ENTROPY_WEIGHT * policy.entropy().mean()

    def learn(learner: TrainState, batch):
        return learner.apply_gradients(grads=jax.grad(loss)(learner.params, *batch)), None

    def epoch(carry, _):
        learner, data, key = carry
        key, shuffle_key = jax.random.split(key)
        order = jax.random.permutation(shuffle_key, num_envs * num_steps)
        batches = jax.tree.map(
            lambda leaf: leaf[order].reshape(MINIBATCHES, -1, *leaf.shape[1:]), data
        )
        learner, _ = jax.lax.scan(learn, learner, batches)
        return (learner, data, key), None

    def update(carry, _):
        learner, state, observation, statistics, key = carry

        def act(carry, _):
            state, observation, statistics, key = carry
            key, action_key, step_key = jax.random.split(key, 3)
            policy, value = network.apply(learner.params, observation)
            action = policy.sample(seed=action_key)
            log_probability = policy.log_prob(action)
            next_observation, state, reward, done, _ = env_step(
                jax.random.split(step_key, num_envs), state, action, parameters
            )
            running = statistics.running + reward
            statistics = Statistics(
                jnp.where(done, 0.0, running), jnp.where(done, running, statistics.finished)
            )
            transition = Transition(observation, action, log_probability, value, reward, done)
            carry = (state, next_observation, statistics, key)
            return carry, (transition, statistics.finished)

        carry = (state, observation, statistics, key)
        carry, (rollout, returns) = jax.lax.scan(act, carry, None, length=num_steps)
        state, observation, statistics, key = carry
        _, last_value = network.apply(learner.params, observation)
        advantage = advantages(rollout, last_value)
        data = (rollout, advantage, advantage + rollout.value)
        data = jax.tree.map(lambda leaf: leaf.reshape(num_envs * num_steps, *leaf.shape[2:]), data)
        (learner, _, key), _ = jax.lax.scan(epoch, (learner, data, key), None, length=EPOCHS)
        return (learner, state, observation, statistics, key), (returns, rollout.done)

    def train(key):
        key, network_key, reset_key = jax.random.split(key, 3)
        observation, state = reset(jax.random.split(reset_key, num_envs), parameters)
        weights = network.init(network_key, observation)
        learner = TrainState.create(apply_fn=network.apply, params=weights, tx=optimiser)
        zeros = jnp.zeros(num_envs)
        carry = (learner, state, observation, Statistics(zeros, zeros), key)
        (learner, *_), episodes = jax.lax.scan(update, carry, None, length=num_updates)
        return learner.params, episodes

    return train, num_updates * num_envs * num_steps


def make(env: str, num_envs: int, num_steps: int, total_steps: int, num_seeds: int = 1):
    train, steps = make_train(env, num_envs, num_steps, total_steps)
    function = jax.jit(train if num_seeds == 1 else jax.vmap(train))

    def keys(seed: int):
        key = jax.random.key(seed)
        return key if num_seeds == 1 else jax.random.split(key, num_seeds)

    start = time.perf_counter()
    compiled = function.lower(keys(0)).compile()
    facts = {"compile_seconds": time.perf_counter() - start}
    seed = 0

    def one_round() -> dict[str, Any]:
        nonlocal seed
        seed += 1
        start = time.perf_counter()
        _, (returns, done) = jax.block_until_ready(compiled(keys(seed)))
        seconds = time.perf_counter() - start
        shape = (num_seeds, -1, num_steps * num_envs)
        ended = np.asarray(done).reshape(shape)
        sums = (np.asarray(returns).reshape(shape) * ended).sum(-1)
        curves = [
            summarise(count, total, num_envs * num_steps)
            for count, total in zip(ended.sum(-1), sums, strict=True)
        ]
        return {"steps": steps * num_seeds, "seconds": seconds, "curves": curves}

    return one_round, facts


if __name__ == "__main__":
    serve(make, ["jax", "jaxlib", "flax", "optax", "distrax", "gymnax"])
