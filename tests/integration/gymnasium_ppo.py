"""PPO on a Gymnasium vector, as a user's single-file script has it.

It calls nothing but Gymnasium, in the order such scripts do (`gymnasium.vector.SyncVectorEnv` over
`gymnasium.make` and `RecordEpisodeStatistics`, `reset(seed=...)`, `step`, `close`), and knows nothing
of kiloworlds.
"""

import argparse

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical


def make_env():
    return gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1"))


def network(inputs: int, outputs: int, last_gain: float) -> nn.Sequential:
    sizes, gains = [inputs, 64, 64, outputs], [2**0.5, 2**0.5, last_gain]
    layers = []
    for before, after, gain in zip(sizes, sizes[1:], gains, strict=False):
        linear = nn.Linear(before, after)
        nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def advantages_of(rewards, values, ended, last_value, gamma=0.98, decay=0.9):
    """Generalised advantage estimation; `ended[t]` says that step t ended an episode."""
    advantages, running = torch.zeros_like(rewards), 0.0
    following = torch.cat([values[1:], last_value[None]])
    for t in reversed(range(len(rewards))):
        live = 1.0 - ended[t]
        running = (
            rewards[t] + gamma * following[t] * live - values[t] + gamma * decay * live * running
        )
        advantages[t] = running
    return advantages


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-steps", type=int, default=25_000)
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=64)
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    envs = gym.vector.SyncVectorEnv([make_env for _ in range(args.num_envs)])
    assert isinstance(envs.single_action_space, gym.spaces.Discrete)
    inputs = int(np.prod(envs.single_observation_space.shape))
    actor = network(inputs, int(envs.single_action_space.n), 0.01)
    critic = network(inputs, 1, 1.0)
    parameters = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, eps=1e-5)

    returns: list[float] = []
    observation = torch.as_tensor(envs.reset(seed=1)[0])
    after_end = torch.zeros(args.num_envs)
    for _ in range(args.total_steps // (args.num_envs * args.num_steps)):
        kept: list[tuple[torch.Tensor, ...]] = []
        for _ in range(args.num_steps):
            with torch.no_grad():
                policy, value = Categorical(logits=actor(observation)), critic(observation)[:, 0]
            action = policy.sample()
            new, reward, terminated, truncated, infos = envs.step(action.numpy())
            over = torch.as_tensor(np.logical_or(terminated, truncated)).float()
            kept.append(
                (
                    observation,
                    action,
                    policy.log_prob(action),
                    value,
                    torch.as_tensor(np.asarray(reward, np.float32)),
                    over,
                    1.0 - after_end,  # the step that only resets teaches nothing
                )
            )
            observation, after_end = torch.as_tensor(new), over
            if "episode" in infos:
                returns += infos["episode"]["r"][infos["_episode"]].tolist()
        seen, acted, log_prob, value, reward, over, counts = map(
            torch.stack, zip(*kept, strict=True)
        )
        with torch.no_grad():
            advantage = advantages_of(reward, value, over, critic(observation)[:, 0])
        target = (advantage + value).flatten()
        advantage, log_prob, acted = advantage.flatten(), log_prob.flatten(), acted.flatten()
        seen = seen.flatten(0, 1)
        useful = torch.nonzero(counts.flatten())[:, 0]
        for _ in range(6):
            for batch in useful[torch.randperm(len(useful))].chunk(4):
                policy = Categorical(logits=actor(seen[batch]))
                ratio = (policy.log_prob(acted[batch]) - log_prob[batch]).exp()
                gain = advantage[batch]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                objective = torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
                error = (critic(seen[batch])[:, 0] - target[batch]).square().mean()
                loss = 0.25 * error - objective - 0.01 * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()
    envs.close()
    return returns


if __name__ == "__main__":
    returns = main()
