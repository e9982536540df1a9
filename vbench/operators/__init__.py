"""The operators by themselves: checked, compiled, timed, tuned."""
