"""What is measured of one launch: time, memory, energy, and the device's state meanwhile."""
