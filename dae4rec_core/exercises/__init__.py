"""Checkers for the exercises: `check_<name>(your_function)` prints a sentence and returns True or False."""

from dae4rec_core.exercises.beyond import *  # noqa: F403
from dae4rec_core.exercises.cloud import *  # noqa: F403
from dae4rec_core.exercises.compensation import *  # noqa: F403
from dae4rec_core.exercises.diffusion import *  # noqa: F403
from dae4rec_core.exercises.embeddings import *  # noqa: F403
from dae4rec_core.exercises.evidence import *  # noqa: F403
from dae4rec_core.exercises.graphs import *  # noqa: F403
from dae4rec_core.exercises.maps import *  # noqa: F403
from dae4rec_core.exercises.sampling import *  # noqa: F403
from dae4rec_core.exercises.scaling import *  # noqa: F403
from dae4rec_core.exercises.start import *  # noqa: F403
