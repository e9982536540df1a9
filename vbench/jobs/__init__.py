"""Jobs, each in a process of its own: what they are called, and what runs them."""
