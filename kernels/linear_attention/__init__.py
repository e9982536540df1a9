"""Normalised linear attention, not causal: every token reads one summary of all. The equations: README.md here."""
