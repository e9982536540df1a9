"""`python -m vbench`."""

from vbench.commands.app import main

if __name__ == "__main__":
    main()
