"""Figures from a frame of records: `table` lists them, `draw` makes files of them. Nothing here measures."""
