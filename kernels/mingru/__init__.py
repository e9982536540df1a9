"""minGRU's recurrence, one direction a call. The equations and the forms: README.md here."""
