"""What was measured: records as they are appended, and the table that is made of them."""
