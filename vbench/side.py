"""Runs the jobs of another process; see `jobs.revision_runner`. Release 0.1 starts it by this name."""

from vbench.jobs.revision_runner import serve

if __name__ == "__main__":
    serve()
