"""What this machine can measure, how finely, and what stands in the way."""
