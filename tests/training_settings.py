"""Settings of trainings that take a moment."""

TINY = {
    "num_envs": 4,
    "num_steps": 16,
    "num_minibatches": 4,
    "total_steps": 640,
    "hidden_sizes": (8,),
}
