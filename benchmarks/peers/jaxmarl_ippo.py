"""Worker: IPPO on jaxmarl's environments in the manner of JaxMARL's training scripts.

One jit-compiled function trains from scratch with weights shared by all agents: a scan over updates,
each a scan over environment steps, a reverse scan for the advantages, a scan over epochs and one over
minibatches. The package on PyPI has no training scripts; this one was written for this comparison
from the published structure and settings of the project's IPPO baselines (A. Rutherford et al.,
"JaxMARL: Multi-Agent RL Environments and Algorithms in JAX", 2023), feed-forward on MPE and with a
GRU on SMAX, with the libraries they use: jax, flax, optax, distrax, and the package's environments
and logging wrappers. Computed are the same networks, losses and schedules in the same order and
precision.

Differences: figures come back from the scan, once for each update, where the originals call back to
the host (for SMAX with every step's figures); one training instead of a `vmap` over seeds; shorter
trainings, over which the learning rate falls to 0, and other maps where asked for. Observations of
different lengths are padded with zeros, which the feed-forward original means to do but fails at.
"""

import functools
import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from harness import serve
from jaxmarl.wrappers.baselines import MPELogWrapper, SMAXLogWrapper
from peers.curves import means_by_part
from peers.jaxmarl_envs import build


@dataclass(frozen=True)
class Settings:
    """Published settings of one script."""

    recurrent: bool
    num_envs: int
    num_steps: int
    learning_rate: float
    clip: float
    max_gradient_norm: float
    unroll: int  # of the scan for the advantages
    epochs: int = 4
    minibatches: int = 4
    discount: float = 0.99
    trace: float = 0.95
    entropy_weight: float = 0.01
    value_weight: float = 0.5
    width: int = 128  # of the layers and the GRU; the feed-forward network has two times 64


FEEDFORWARD = Settings(False, 16, 128, 2.5e-4, clip=0.2, max_gradient_norm=0.5, unroll=8, width=64)
RECURRENT = Settings(True, 128, 128, 0.004, clip=0.05, max_gradient_norm=0.25, unroll=16)
SMAX_SETTINGS = {"see_enemy_actions": True, "walls_cause_death": True, "attack_mode": "closest"}


def dense(width: int, scale: float) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.orthogonal(scale))


class FeedForward(nn.Module):
    """Policy and value apart, each with two tanh layers."""

    num_actions: int
    width: int

    @nn.compact
    def __call__(self, memory, observation, begins, legal):
        outputs = []
        for size, scale in ((self.num_actions, 0.01), (1, 1.0)):
            x = observation
            for _ in range(2):
                x = nn.tanh(dense(self.width, np.sqrt(2))(x))
            outputs.append(dense(size, scale)(x))
        logits, value = outputs
        return memory, distrax.Categorical(logits=logits), value[..., 0]

    def first_memory(self, size: int):
        return ()


class Remember(nn.Module):
    """A GRU over the leading axis, its memory zeroed where an episode begins."""

    @functools.partial(
        nn.scan,
        variable_broadcast="params",
        in_axes=0,
        out_axes=0,
        split_rngs={"params": False},
    )
    @nn.compact
    def __call__(self, memory, inputs):
        x, begins = inputs
        memory = jnp.where(begins[:, None], jnp.zeros_like(memory), memory)
        return nn.GRUCell(features=x.shape[1])(memory, x)


class Recurrent(nn.Module):
    """A relu layer, a GRU, then a relu layer each for the policy and the value. [time, actor, ...]"""

    num_actions: int
    width: int

    @nn.compact
    def __call__(self, memory, observation, begins, legal):
        x = nn.relu(dense(self.width, np.sqrt(2))(observation))
        memory, x = Remember()(memory, (x, begins))
        outputs = []
        for size, scale in ((self.num_actions, 0.01), (1, 1.0)):
            y = nn.relu(dense(self.width, 2)(x))
            outputs.append(dense(size, scale)(y))
        logits, value = outputs
        logits = logits - (1 - legal) * 1e10
        return memory, distrax.Categorical(logits=logits), value[..., 0]

    def first_memory(self, size: int):
        return jnp.zeros((size, self.width))


class Transition(NamedTuple):
    observation: Any
    begins: Any  # whether the observation is the first of an episode
    legal: Any
    action: Any
    log_probability: Any
    value: Any
    reward: Any
    done: Any


class Ended(NamedTuple):
    """Of the episodes that ended during an update: how many, and sums over them."""

    count: Any
    return_sum: Any  # of the mean over agents
    wins: Any


def make_train(env_id: str, s: Settings, total_steps: int):
    """Returns `train(key) -> (weights, Ended of each update)` and the steps it makes."""
    num_updates = total_steps // (s.num_envs * s.num_steps)
    smax = env_id.startswith("smax/")
    wrapper, env_settings = (SMAXLogWrapper, SMAX_SETTINGS) if smax else (MPELogWrapper, {})
    env = wrapper(build(env_id, **env_settings))
    agents = env.agents
    num_actors = len(agents) * s.num_envs
    num_actions = env.action_space(agents[0]).n
    longest = max(env.observation_space(agent).shape[0] for agent in agents)
    network = (Recurrent if s.recurrent else FeedForward)(num_actions, s.width)

    def actors(values):
        """A dictionary of [environment, ...] as [agent x environment, ...]."""
        return jnp.stack([values[agent] for agent in agents]).reshape(num_actors, -1)

    def observed(observations):
        padded = {
            agent: jnp.pad(x, ((0, 0), (0, longest - x.shape[-1])))
            for agent, x in observations.items()
            if agent in agents
        }
        return actors(padded)

    def policy(weights, memory, observation, begins, legal):
        """One step of the network, without time."""
        if not s.recurrent:
            return network.apply(weights, memory, observation, begins, legal)
        memory, policy, value = network.apply(
            weights, memory, observation[None], begins[None], legal
        )
        return memory, policy, value[0]

    def learning_rate(count):
        return s.learning_rate * (1.0 - (count // (s.epochs * s.minibatches)) / num_updates)

    optimiser = optax.chain(
        optax.clip_by_global_norm(s.max_gradient_norm), optax.adam(learning_rate, eps=1e-5)
    )

    def advantages(rollout: Transition, last_value):
        def backward(carry, step):
            advantage, next_value = carry
            error = step.reward + s.discount * next_value * (1 - step.done) - step.value
            advantage = error + s.discount * s.trace * (1 - step.done) * advantage
            return (advantage, step.value), advantage

        start = (jnp.zeros_like(last_value), last_value)
        _, result = jax.lax.scan(backward, start, rollout, reverse=True, unroll=s.unroll)
        return result

    def loss(weights, memory, batch: Transition, advantage, target):
        _, policy, value = network.apply(
            weights, memory, batch.observation, batch.begins, batch.legal
        )
        clipped_value = batch.value + jnp.clip(value - batch.value, -s.clip, s.clip)
        value_loss = 0.5 * jnp.maximum((value - target) ** 2, (clipped_value - target) ** 2).mean()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = jnp.exp(policy.log_prob(batch.action) - batch.log_probability)
        clipped_ratio = jnp.clip(ratio, 1 - s.clip, 1 + s.clip)
        gain = jnp.minimum(ratio * advantage, clipped_ratio * advantage)
        entropy = policy.entropy().mean()
        return s.value_weight * value_loss - gain.mean() - s.entropy_weight * entropy

    def learn(learner: TrainState, batch):
        return learner.apply_gradients(grads=jax.grad(loss)(learner.params, *batch)), None

    def shuffled(key, memory, data):
        """Minibatches: of whole sequences if recurrent, else of single steps of single actors."""
        if not s.recurrent:
            data = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)
            order = jax.random.permutation(key, num_actors * s.num_steps)
            data = jax.tree.map(
                lambda x: jnp.take(x, order, axis=0).reshape(s.minibatches, -1, *x.shape[1:]), data
            )
            return (memory, *data)
        order = jax.random.permutation(key, num_actors)

        def parts(x):
            x = jnp.take(x, order, axis=1)
            x = x.reshape(x.shape[0], s.minibatches, -1, *x.shape[2:])
            return jnp.swapaxes(x, 0, 1)

        memory, *data = jax.tree.map(parts, (memory[None], *data))
        return (memory[:, 0], *data)

    def epoch(carry, _):
        learner, memory, data, key = carry
        key, shuffle_key = jax.random.split(key)
        learner, _ = jax.lax.scan(learn, learner, shuffled(shuffle_key, memory, data))
        return (learner, memory, data, key), None

    def update(carry, _):
        learner, state, observation, begins, memory, key = carry

        def act(carry, _):
            state, observation, begins, memory, key = carry
            key, action_key = jax.random.split(key)
            legal = None
            if s.recurrent:
                masks = jax.vmap(env.get_avail_actions)(state.env_state)
                legal = actors(masks)
            batch = observed(observation)
            memory, chosen, value = policy(learner.params, memory, batch, begins, legal)
            action = chosen.sample(seed=action_key)
            log_probability = chosen.log_prob(action)
            action, log_probability = action.reshape(-1), log_probability.reshape(-1)
            key, step_key = jax.random.split(key)
            per_agent = action.reshape(len(agents), s.num_envs)
            actions = dict(zip(agents, per_agent, strict=True))
            next_observation, state, reward, done, info = jax.vmap(env.step)(
                jax.random.split(step_key, s.num_envs), state, actions
            )
            # With a memory an agent may die before the episode ends; its value lives on.
            next_begins = actors(done)[:, 0]
            ends = jnp.tile(done["__all__"], len(agents)) if s.recurrent else next_begins
            transition = Transition(
                batch,
                begins,
                legal,
                action,
                log_probability,
                value,
                actors(reward)[:, 0],
                ends,
            )
            return (state, next_observation, next_begins, memory, key), (transition, info)

        first_memory = memory
        carry = (state, observation, begins, memory, key)
        carry, (rollout, info) = jax.lax.scan(act, carry, None, length=s.num_steps)
        state, observation, begins, memory, key = carry
        everything = jnp.ones((num_actors, num_actions)) if s.recurrent else None
        _, _, last_value = policy(learner.params, memory, observed(observation), begins, everything)
        advantage = advantages(rollout, last_value)
        data = (rollout, advantage, advantage + rollout.value)
        start = (learner, first_memory, data, key)
        (learner, _, _, key), _ = jax.lax.scan(epoch, start, None, length=s.epochs)
        return (learner, state, observation, begins, memory, key), summed(info)

    def summed(info) -> Ended:
        """Figures [step, environment, agent] of one update."""
        ended = info["returned_episode"][..., 0]
        returns = info["returned_episode_returns"].mean(-1)
        if not smax:  # MPE's wrapper multiplies rewards by the number of agents
            returns = returns / len(agents)
        won = info["returned_won_episode"][..., 0] if smax else jnp.zeros_like(returns)
        return Ended(ended.sum(), (returns * ended).sum(), (won * ended).sum())

    def train(key):
        key, network_key = jax.random.split(key)
        if s.recurrent:
            shape = (1, s.num_envs)
            inputs = (jnp.zeros((*shape, longest)), jnp.zeros(shape))
            inputs = (*inputs, jnp.zeros((*shape, num_actions)))
            weights = network.init(network_key, network.first_memory(s.num_envs), *inputs)
        else:
            weights = network.init(network_key, (), jnp.zeros(longest), None, None)
        learner = TrainState.create(apply_fn=network.apply, params=weights, tx=optimiser)
        key, reset_key = jax.random.split(key)
        observation, state = jax.vmap(env.reset)(jax.random.split(reset_key, s.num_envs))
        begins = jnp.zeros(num_actors, bool)
        memory = network.first_memory(num_actors)
        carry = (learner, state, observation, begins, memory, key)
        (learner, *_), ended = jax.lax.scan(update, carry, None, length=num_updates)
        return learner.params, ended

    return train, num_updates * s.num_envs * s.num_steps


def make(env: str, total_steps: int, settings: dict[str, Any] | None = None):
    """`settings` override the published ones, which are recurrent for SMAX."""
    published = RECURRENT if env.startswith("smax/") else FEEDFORWARD
    train, steps = make_train(env, replace(published, **(settings or {})), total_steps)
    start = time.perf_counter()
    compiled = jax.jit(train).lower(jax.random.PRNGKey(0)).compile()
    facts = {"compile_seconds": time.perf_counter() - start}
    seed = 0

    def one_round() -> dict[str, Any]:
        nonlocal seed
        seed += 1
        start = time.perf_counter()
        _, ended = jax.block_until_ready(compiled(jax.random.PRNGKey(seed)))
        seconds = time.perf_counter() - start
        sums = {"returns": ended.return_sum, "win_rate": ended.wins}
        found = means_by_part(ended.count, sums, steps // len(ended.count))
        return {"steps": steps, "seconds": seconds, "curves": [found]}

    return one_round, facts


if __name__ == "__main__":
    serve(make, ["jax", "jaxlib", "flax", "optax", "distrax", "jaxmarl"])
