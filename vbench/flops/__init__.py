"""Work and memory that are counted or predicted, without a device."""
