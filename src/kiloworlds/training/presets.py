"""Settings that solve each environment, by algorithm and id."""

from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {"ppo": {}}


def preset(algorithm: str, env_id: str) -> dict[str, Any]:
    """The overrides of the defaults for an environment; {} where the defaults serve."""
    return dict(PRESETS.get(algorithm, {}).get(env_id, {}))
