"""The selective scan of Mamba, with one, two or four walks a call. The equations and the forms: README.md here."""
