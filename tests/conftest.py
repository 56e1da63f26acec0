"""Stricter than users: two simulated devices, and warnings are errors (see pyproject.toml)."""

import os
import signal
import tempfile

import jax

# Most of the tests' time is compiling programs that run for milliseconds. `XLA_FLAGS= pytest` leaves XLA
# to its own optimisations, for learning runs that take minutes.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
jax.config.update("jax_num_cpu_devices", 2)
jax.devices()  # opens them now: a test that calls the command line would choose another number

# A shell's background job inherits Ctrl-C ignored, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# One cache for the whole session, subprocesses included: many tests compile the same programs.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="kiloworlds-test-cache-")
    os.environ["KILOWORLDS_CACHE_DIR"] = _cache.name
jax.config.update("jax_compilation_cache_dir", os.environ["KILOWORLDS_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
