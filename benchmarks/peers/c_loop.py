"""Worker: CartPole as a vectorised C loop, compiled here."""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import HERE, AbsentError, repeat_for, serve


def make(num_envs: int, threads: int, seconds: float):
    compiler = shutil.which("cc")
    if compiler is None:
        raise AbsentError("no C compiler (cc)")
    with tempfile.TemporaryDirectory() as folder:
        library_path = Path(folder) / "cartpole.so"
        flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-pthread"]
        source = HERE / "reference" / "cartpole.c"
        subprocess.run([compiler, *flags, str(source), "-o", str(library_path)], check=True)
        library = ctypes.CDLL(str(library_path))
    library.batch_new.restype = ctypes.c_void_p
    library.run.restype = ctypes.c_double
    handles = [library.batch_new(num_envs // threads, seed) for seed in range(threads)]
    batches = (ctypes.c_void_p * threads)(*handles)
    clock, steps = 0, max(1, 4_000_000 // num_envs)

    def once() -> int:
        nonlocal clock
        checksum = library.run(batches, threads, steps, ctypes.c_uint32(clock))
        assert checksum == checksum, "not a number"
        clock += steps
        return steps * num_envs

    return repeat_for(seconds, once), {"flags": " ".join(flags)}


if __name__ == "__main__":
    serve(make, [])
