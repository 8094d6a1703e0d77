"""Evidence: a search, a grid of runs on five data sets, and the tables that notebooks 06 and 08 read."""

import dae4rec_core  # noqa: F401  before torch: its threads then spin less while they wait
