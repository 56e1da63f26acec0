"""STORM: matrix games played by meeting in a grid (Khan et al. 2023)."""
