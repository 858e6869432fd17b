"""Plain data, of numpy arrays: what the stages hand to each other."""
