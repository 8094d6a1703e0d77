"""From files to next-item examples."""
