"""Evidence: a search, a grid of runs on five data sets, and the tables that notebooks 06 and 08 read."""
