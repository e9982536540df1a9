"""What this machine can measure, how precisely, and what would disturb a measurement."""
