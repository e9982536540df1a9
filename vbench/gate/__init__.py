"""Whether a change made a backbone slower or larger: two revisions in turn, or counted work."""
