"""dae4rec_core: the method of DAE4Rec (AAAI 2025), small enough to read in an afternoon."""
