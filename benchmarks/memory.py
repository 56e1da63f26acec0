"""What it costs before learning starts: memory of 65,536 CartPoles, and seconds to import.

    python benchmarks/memory.py --peers-python PATH

Every figure is from fresh processes, in turn. Memory is the process's peak resident set: interpreter,
libraries, compiled programs and environments together.
"""

import json
import os
import subprocess
import sys
from typing import Any

from harness import SOURCE, arguments, log, median_interval, write_results

NUM_ENVS = 65_536

_REPORT = """
import json, resource
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
print(json.dumps({"megabytes": peak / 1e6}))
"""

_STEPS = f"""
import numpy as np
actions = np.ones({NUM_ENVS}, np.int32)
envs.reset()
for _ in range(20):
    envs.step(actions)
"""

MEMORY = {
    "python alone": "",
    "import jax, one computation": "import jax; jax.numpy.ones(3).sum().block_until_ready()",
    "kiloworlds": f"import kiloworlds; envs = kiloworlds.make('CartPole-v1', {NUM_ENVS})" + _STEPS,
    "EnvPool": "import envpool; envs = envpool.make_gymnasium("
    f"'CartPole-v1', num_envs={NUM_ENVS}, num_threads=2)" + _STEPS,
    "Gymnasium vectorised": "import gymnasium; envs = gymnasium.make_vec('CartPole-v1', "
    f"{NUM_ENVS}, vectorization_mode='vector_entry_point')" + _STEPS,
    "Gymnasium sync": "import gymnasium; envs = gymnasium.make_vec('CartPole-v1', "
    f"{NUM_ENVS}, vectorization_mode='sync')" + _STEPS,
}
PEERS = ("EnvPool", "Gymnasium vectorised", "Gymnasium sync")

IMPORTS = {
    "numpy": "import numpy",
    "jax": "import jax",
    "kiloworlds": "import kiloworlds",
    "kiloworlds and make": "import kiloworlds; kiloworlds.make",
    "kiloworlds and train": "import kiloworlds; kiloworlds.train",
}
_CLOCK = (
    "import json, time\nstart = time.perf_counter()\n{}\nseconds = time.perf_counter() - start\n"
)
_CLOCK += "print(json.dumps({{'seconds': seconds}}))"


def run_program(program: str, python: str) -> dict[str, Any]:
    """The JSON that a fresh interpreter prints last, or {"absent": why} if a module is missing."""
    paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [python, "-W", "ignore", "-c", program],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1]
        if "ModuleNotFoundError" in reason:
            return {"absent": reason}
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def in_turn(programs: dict[str, tuple[str, str]], unit: str, rounds: int) -> list[dict[str, Any]]:
    """Runs each (program, interpreter) `rounds` times, the order turning from round to round."""
    values: dict[str, list[float]] = {name: [] for name in programs}
    absent: dict[str, str] = {}
    for index in range(rounds):
        for name in list(programs)[:: 1 if index % 2 == 0 else -1]:
            if name in absent:
                continue
            answer = run_program(*programs[name])
            if "absent" in answer:
                absent[name] = answer["absent"]
            else:
                values[name].append(answer[unit])
    records = []
    for name, measured in values.items():
        record: dict[str, Any] = {"name": name}
        if name in absent:
            record["absent"] = absent[name]
        else:
            median, interval = median_interval(measured)
            record |= {"median": median, "interval": interval, "values": measured}
        log(f"  {record}")
        records.append(record)
    return records


def main() -> None:
    assert __doc__ is not None
    options = arguments(__doc__.splitlines()[0]).parse_args()
    rounds = options.rounds or (2 if options.quick else 7)
    log("memory")
    skipped = {"Gymnasium sync"} if options.quick else set()
    memory = {
        name: (program + _REPORT, options.peers_python if name in PEERS else sys.executable)
        for name, program in MEMORY.items()
        if name not in skipped
    }
    log("import")
    imports = {name: (_CLOCK.format(program), sys.executable) for name, program in IMPORTS.items()}
    content = {
        "rounds": rounds,
        "num_envs": NUM_ENVS,
        "memory": in_turn(memory, "megabytes", rounds),
        "imports": in_turn(imports, "seconds", rounds),
    }
    write_results("memory", content, options.quick, options.update)


if __name__ == "__main__":
    main()
