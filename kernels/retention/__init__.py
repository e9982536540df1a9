"""Retention, causal, with a fixed decay for each head. The equations and the forms: README.md here."""
