"""Small models as users write them. Each does something for which a pass without data is not made."""
