"""For bounds of the last digits: `jax.jit(function, compiler_options=FULL)` compiles as for users, while
conftest.py has other programs compiled with few optimisations."""

FULL = {"xla_backend_optimization_level": 3}
