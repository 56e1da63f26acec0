"""Stricter than users: two simulated devices, and warnings are errors (see pyproject.toml)."""

import jax

jax.config.update("jax_num_cpu_devices", 2)
