"""Measures taken from the landmarks: pose, openness, aligned chips."""
