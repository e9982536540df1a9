"""Whether a change made a model slower or larger: two revisions timed in turn, or work that is counted."""
