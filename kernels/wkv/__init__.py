"""Bi-WKV, the bidirectional attention of Vision-RWKV. The equations and the forms: README.md here."""
