"""dae4rec_core: the method of DAE4Rec (AAAI 2025), small enough to read in an afternoon."""

import os

# PyTorch's threads spin while they wait for each other. Beside one busy process on two cores that makes an epoch on the
# town 5.2 s long; with few turns of the spin it is 3.8 s, and alone it stays 1.8 s (benchmarks/busy.csv). GNU OpenMP
# reads the number when torch is loaded, so import dae4rec_core before torch.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
