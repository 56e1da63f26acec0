"""kiloworlds behind the interfaces of other libraries: Stable-Baselines3, EnvPool, Gymnasium."""
