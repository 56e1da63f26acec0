"""Which devices a training runs on, and what they share among them."""

from enum import StrEnum
from typing import NamedTuple

import jax

from kiloworlds.algorithms.agents_ppo import AgentsPPOConfig
from kiloworlds.algorithms.ppo_config import PPOConfig
from kiloworlds.core.devices import available_cores, configure
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.config import TrainConfig

_SMALL_LAYER = 256
"""Up to this width one thread finishes a layer sooner than several can share it out."""

_LARGE_MINIBATCH = 256
"""From so many transitions on two networks learn faster on a device each: at 128 what the devices wait
for each other costs as much as is gained (measured on two cores)."""


class Axis(StrEnum):
    """What is spread over devices."""

    SEEDS = "seeds"
    """Each device trains some of the seeds: nothing is exchanged."""
    NETWORKS = "networks"
    """One of two devices learns the policies, the other the value functions: they exchange a
    number per minibatch."""
    ENVIRONMENTS = "environments"
    """Each device steps some of the environments of every seed, and gradients are averaged: the
    minibatches depend on the number of devices. The other two compute the same thing on any number,
    up to the rounding of floating-point sums."""


class Placement(NamedTuple):
    """Over how many devices what is spread (None: one device)."""

    devices: int
    axis: Axis | None


class Split(NamedTuple):
    """Devices that a CPU is presented as, and XLA's threads of each."""

    devices: int
    threads: int


def configure_devices(config: TrainConfig) -> None:
    """Sets JAX up for a training, before its first computation.

    A CPU is presented as one device per core the training can use, each with one thread if the
    networks are small: measured on two cores, XLA's own threads made small networks slower, unless
    several agents fill the minibatches.
    """
    split = cpu_split(config)
    configure(cpu_devices=split.devices, threads_per_device=split.threads)


def cpu_split(config: TrainConfig) -> Split:
    """How a training splits the CPU."""
    cores = available_cores()
    wanted = min(config.devices or _largest_divisor(config.num_members, cores), cores)
    if config.devices is None and wanted == 1 and _splits_networks(config):
        wanted = min(2, cores)
    convolves = config.preprocessing is not None or config.settings.network == "cnn"
    if config.max_staleness:  # one device learns while the other acts
        wanted = min(2, cores)
    small = not convolves and _widest_layer(config) <= _SMALL_LAYER and not _threads_pay(config)
    return Split(wanted, config.threads_per_device or (1 if small else max(1, cores // wanted)))


def choose_placement(config: TrainConfig) -> Placement:
    """Where a training runs: on the devices asked for, else on as many as leave the result as it is.

    Raises:
        InvalidValueError: more devices than there are, or a number that divides neither seeds nor
            environments.
    """
    available = len(jax.devices())
    count = config.devices
    if count is None:
        count = _largest_divisor(config.num_members, available)
        on_cpu = jax.default_backend() == "cpu"
        if count == 1 and available > 1 and on_cpu and _splits_networks(config):
            return Placement(2, Axis.NETWORKS)
    if count > available:
        raise InvalidValueError(
            f"devices={count}, but JAX sees {available}; use devices={available}, or split a "
            "CPU with kiloworlds.core.devices.configure before JAX's first computation."
        )
    if count == 1:
        return Placement(1, None)
    if config.num_members % count == 0:
        return Placement(count, Axis.SEEDS)
    if config.num_envs % count == 0:
        return Placement(count, Axis.ENVIRONMENTS)
    raise InvalidValueError(
        f"devices={count} divides neither the {config.num_members} trainings side by side nor "
        f"num_envs={config.num_envs}; change one of them, or use devices=1."
    )


def _widest_layer(config: TrainConfig) -> int:
    settings = config.settings
    widths = settings.hidden_sizes
    return max(
        [*widths, settings.recurrent_size] if settings.network == "gru" else widths, default=0
    )


def _splits_networks(config: TrainConfig) -> bool:
    """Whether a policy and a value function are networks of their own, and better learnt on a device
    each than by several threads."""
    return (
        isinstance(config.settings, PPOConfig)
        and _has_large_minibatches(config)
        and not _threads_pay(config)
    )


def _threads_pay(config: TrainConfig) -> bool:
    """Whether XLA's own threads are the best use of several cores: where minibatches hold the steps of
    several agents. On two cores, independent PPO on simple_spread learnt 1.4 times as fast with three
    seeds and as fast with one, on SMAX 3m 1.5 times. Recurrent networks of a policy and of a
    centralised value function learnt 1.2 times as fast on a device each.
    """
    settings = config.settings
    if not isinstance(settings, AgentsPPOConfig) or not _has_large_minibatches(config):
        return False
    return settings.network != "gru" or not settings.is_centralised


def _has_large_minibatches(config: TrainConfig) -> bool:
    return config.steps_per_update // config.settings.num_minibatches >= _LARGE_MINIBATCH


def _largest_divisor(number: int, limit: int) -> int:
    return max(d for d in range(1, min(number, limit) + 1) if number % d == 0)
