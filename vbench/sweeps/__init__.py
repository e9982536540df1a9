"""The sweep: the loop over cells, the launch of one, and the search for what fits."""
