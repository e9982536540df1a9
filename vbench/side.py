"""Serves one side of a comparison. The name under which release 0.1 starts it; `jobs.revision_runner` is the code."""

from vbench.jobs.revision_runner import serve

if __name__ == "__main__":
    serve()
