"""Gated linear attention, causal or bidirectional. The equations and the forms: README.md here."""
