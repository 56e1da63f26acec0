"""`kiloworlds replay`: makes one step of a training again and shows what went in and what came out."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.text import Text

import kiloworlds
from kiloworlds.cli import options

DESCRIPTION = """\
Trains again from the nearest checkpoint to just before a step, takes it, and shows the environment's
parameters and state, the action, and what it led to: kiloworlds replay RUN --step 81946. Without --step
it is the first one that gave a number that is not finite. In Python, kw.load(RUN).replay(step=81946)
gives the same as values: moment.env, moment.state, moment.action, moment.step()."""

_MOST_NUMBERS = 64
"""Longer arrays are described by their first numbers and their range."""


@dataclasses.dataclass(frozen=True)
class Options(options.Common):
    """Flags of `replay`."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of the run, such as runs/ppo/CartPole-v1_1."""
    step: int | None = None
    """Which step of the training, counted as in the metrics."""
    seed_index: int = 0
    """In which seed of the run; counted from 0."""


def run(arguments: list[str]) -> int:
    """Runs the command and returns its exit code."""
    chosen = options.parse(Options, arguments, "replay", DESCRIPTION)
    console = options.console(chosen.json)
    with kiloworlds.load(chosen.run).replay(chosen.step, chosen.seed_index) as moment:
        parts = {
            "parameters": moment.env,
            "state": moment.state,
            "observation": moment.observation,
            "action": moment.action,
        }
        before = {name: _arrays(part) for name, part in parts.items()}
        after = {name: _arrays(part) for name, part in moment.step()._asdict().items()}
        place = moment.place
    if chosen.json:
        options.print_json(
            {"path": chosen.run, **place._asdict(), **_named(before=before, after=after)}
        )
    console.print(
        f"environment {place.environment} at step {place.step} of update {place.update}",
        style="bold",
    )
    _show(console, "before", before)
    _show(console, "after", after)
    return 0


def _arrays(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by name; of a single one the name is empty."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(
            jax.random.key_data(leaf) if _is_key(leaf) else leaf
        )
        for path, leaf in leaves
    }


def _named(**parts: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """The same with single arrays in place of what holds one without a name."""
    return {
        when: {name: arrays.get("", arrays) for name, arrays in told.items()}
        for when, told in parts.items()
    }


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _show(console: Console, title: str, parts: dict[str, dict[str, np.ndarray]]) -> None:
    console.print(Text(f"\n{title}", "bold"))
    lines = [
        (f"{part}.{name}" if name else part, array)
        for part, arrays in parts.items()
        for name, array in arrays.items()
    ]
    width = max(len(label) for label, _ in lines)
    for label, array in lines:
        style = "" if _is_finite(array) else "bold red"
        console.print(Text(f"  {label:<{width}}  {_told(array)}", style), soft_wrap=True)


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def _told(array: np.ndarray) -> str:
    """An array in a line, long ones in short; where it is not finite, where."""
    if array.size <= _MOST_NUMBERS:
        told = np.array2string(array, separator=", ", max_line_width=10**6, precision=7)
        told = " ".join(told.split())
    else:
        told = f"{array.dtype} {array.shape}, {np.nanmin(array):.7g} to {np.nanmax(array):.7g}"
    if _is_finite(array) or not array.ndim:
        return told
    wrong = [tuple(map(int, index)) for index in np.argwhere(~np.isfinite(array))]
    where = ", ".join(str(index[0]) if len(index) == 1 else str(index) for index in wrong[:5])
    return f"{told}   not finite at {where}{' and more' if len(wrong) > 5 else ''}"
