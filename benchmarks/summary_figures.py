"""Where the figures of docs/benchmarks.md go."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from harness import HERE

DOCS = HERE.parent / "docs"
IMAGES = DOCS / "images"


def save(figure: Any, name: str) -> Path:
    """Lays the figure out, writes it and closes it."""
    figure.set_layout_engine("constrained")
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / name, dpi=160)
    plt.close(figure)
    return IMAGES / name
