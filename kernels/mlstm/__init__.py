"""The matrix LSTM: a matrix memory with exponential gates. The equations and the forms: README.md here."""
