"""dae4rec_core: the method of DAE4Rec (AAAI 2025), small enough to read in an afternoon."""

import os

# PyTorch's threads spin while they wait for each other, which on a busy machine makes a step ten times as long. GNU
# OpenMP reads this when torch is loaded, so import dae4rec_core before torch. Measured by `python -m benchmarks.busy`.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
