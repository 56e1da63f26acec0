"""Which interface a built environment has."""

from typing import Any

from kiloworlds.core.errors import InvalidValueError

# By name, so that no library is imported for an environment that is not of it.
_KINDS = {
    "kiloworlds.core.environment.Environment": "compiled",
    "pettingzoo.utils.env.ParallelEnv": "parallel",
    "pettingzoo.utils.env.AECEnv": "aec",
    "gymnasium.core.Env": "gymnasium",
}


def kind_of(env: Any) -> str:
    """The kind of a built environment: "gymnasium", "parallel", "aec" or "compiled".

    Raises:
        InvalidValueError: it is none of these.
    """
    for cls in type(env).__mro__:
        name = f"{cls.__module__}.{cls.__name__}"
        if name in _KINDS:
            return _KINDS[name]
    if hasattr(env, "reset") and hasattr(env, "step"):
        return "gymnasium"  # or should be: its checks tell
    raise InvalidValueError(
        f"it builds {type(env).__name__}, which is no environment: it has no reset and step"
    )
