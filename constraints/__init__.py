"""The versions that were tested: `lowest.txt`, the declared bounds; `tested.txt`, those of the last release."""
