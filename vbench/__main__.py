"""`python -m vbench`."""

from vbench.cli import main

if __name__ == "__main__":
    main()
