"""Accuracy on images: which images and labels, how they are read, the shards of an evaluation, and their loop."""
