"""What runs in the reader's browser: the model (model.js), the town's law (law.js), and what they are given."""

from typing import Any

import numpy as np

from dae4rec_core.data.town import TownLaw

ARRAYS = ("district", "category", "popularity", "near", "follows", "second", "taste", "next_slot", "etas")


def law_parameters(law: TownLaw) -> dict[str, Any]:
    """The arrays of a town's law as lists, for JSON; law.js reads them."""
    return {name: np.asarray(getattr(law, name)).tolist() for name in ARRAYS}
