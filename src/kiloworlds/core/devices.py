"""Settings of JAX that must be made before its first computation."""

import os

import jax

from kiloworlds.core import machine

_CACHE_VARIABLE = "KILOWORLDS_CACHE_DIR"


def available_cores() -> int:
    """The cores this process may use: its affinity and its container's quota, not the machine's."""
    return machine.usable_cores()


def is_initialised() -> bool:
    """Whether JAX has already opened its devices, after which `configure` has no effect on them."""
    from jax._src import xla_bridge  # no public way to ask without opening them

    return xla_bridge.backends_are_initialized()


def configure(cpu_devices: int | None = None, threads_per_device: int | None = None) -> bool:
    """Sets how many devices the CPU is presented as, and turns on the compilation cache.

    Small networks and environments run fastest on one thread per device: XLA's own threads wait
    for each other longer than they compute. Several devices then use several cores.

    Args:
        cpu_devices: devices to split the CPU into; None leaves JAX's default of one.
        threads_per_device: size of XLA's thread pool; None leaves its default, all cores.

    Returns:
        True if the settings take effect, False if JAX's devices were open already.
    """
    enable_compilation_cache()
    if is_initialised():
        return False
    if threads_per_device is not None:
        os.environ.setdefault("PJRT_NPROC", str(threads_per_device))
    if cpu_devices is not None:
        jax.config.update("jax_num_cpu_devices", cpu_devices)
    return True


def elementwise_compiler_options() -> dict[str, int] | None:
    """Options of `jax.jit` for programs that are all element-wise work, as environments are.

    XLA uses half-width vectors on processors with AVX-512 unless told otherwise; full width makes a
    CartPole step a quarter faster. Elsewhere the option has no effect.
    """
    if jax.default_backend() != "cpu":
        return None
    return {"xla_cpu_prefer_vector_width": 512}


def cache_directory() -> str | None:
    """Where compiled programs are kept: $KILOWORLDS_CACHE_DIR, else the user's cache directory.

    None (no cache) when the variable is set to the empty string.
    """
    chosen = os.environ.get(_CACHE_VARIABLE)
    if chosen is not None:
        return chosen or None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "kiloworlds", "xla")


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk between processes, unless the user chose a cache already."""
    directory = cache_directory()
    if directory is None or jax.config.values.get("jax_compilation_cache_dir"):
        return
    jax.config.update("jax_compilation_cache_dir", directory)
    # The defaults skip programs that compile in under a second, which most of ours do.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
