"""How the adapters turn down an argument that they cannot honour."""

from collections.abc import Callable
from typing import Any

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.base import VectorEnv


def refuse(call: str, name: str, value: Any, reason: str) -> InvalidValueError:
    """The error for an argument of another library that has no meaning here.

    Args:
        call: the function or class it was given to, such as "make_vec_env".
        name: the argument.
        value: what it was.
        reason: why not, and what to do instead, without a full stop.
    """
    return InvalidValueError(f"{call}: {name}={value!r} is not supported: {reason}.")


def refuse_several_agents(call: str, vector: VectorEnv) -> None:
    """Closes a vector whose environments have several agents, and says that only `make` runs those.

    Raises:
        InvalidValueError: it has.
    """
    agents = getattr(vector, "possible_agents", None)
    if agents is not None:
        vector.close()
        raise InvalidValueError(
            f"{call}: environments of several agents ({', '.join(map(str, agents))}) are not "
            "supported; kiloworlds.make runs them, with an agent axis."
        )


def as_factory(env: Callable[..., Any], env_kwargs: dict[str, Any]) -> Callable[[], Any]:
    """A function without arguments that calls `env`, a class or function, with `env_kwargs`."""

    def build() -> Any:
        return env(**env_kwargs)

    return build
