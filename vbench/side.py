"""Serves one side of a comparison. The name under which release 0.1 starts it; `jobs.side` is the code."""

from vbench.jobs.side import serve

if __name__ == "__main__":
    serve()
