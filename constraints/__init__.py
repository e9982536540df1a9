"""The versions with which the project was proved: `lowest.txt`, the declared bounds; `tested.txt`, the last release."""
