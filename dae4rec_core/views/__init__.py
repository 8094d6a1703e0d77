"""What a reader sees: figures, widgets and explorers."""
