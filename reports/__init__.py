"""Tables and figures from a frame of records. Nothing here measures."""
