"""Named sweeps: TOML files that state a question, its cells and the time they take."""
