"""Which devices a training runs on."""

import jax

from kiloworlds.core.devices import available_cores, configure
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.training.config import TrainConfig

_SMALL_LAYER = 256
"""Up to this width one thread finishes a layer sooner than several can share it out."""


def configure_devices(config: TrainConfig) -> None:
    """Sets JAX up for a training, before its first computation.

    A CPU is presented as one device per core the seeds can use, each with one thread if the networks
    are small: measured on two cores, XLA's own threads made small networks slower, not faster.
    """
    cores = available_cores()
    wanted = config.devices or _largest_divisor(config.num_seeds, cores)
    small = max(config.settings.hidden_sizes, default=0) <= _SMALL_LAYER
    configure(cpu_devices=wanted, threads_per_device=1 if small else max(1, cores // wanted))


def choose_devices(config: TrainConfig) -> int:
    """How many devices the training uses: as asked, else as many as share the seeds evenly.

    Raises:
        InvalidValueError: more than there are, or a number that divides neither seeds nor
            environments.
    """
    available = len(jax.devices())
    if config.devices is None:
        return _largest_divisor(config.num_seeds, available)
    if config.devices > available:
        raise InvalidValueError(
            f"devices={config.devices}, but JAX sees {available}; use devices={available}, or split a "
            "CPU with kiloworlds.core.devices.configure before JAX's first computation."
        )
    if config.num_seeds % config.devices and config.num_envs % config.devices:
        raise InvalidValueError(
            f"devices={config.devices} divides neither num_seeds={config.num_seeds} nor "
            f"num_envs={config.num_envs}; change one of them, or use devices=1."
        )
    return config.devices


def _largest_divisor(number: int, limit: int) -> int:
    return max(d for d in range(1, min(number, limit) + 1) if number % d == 0)
