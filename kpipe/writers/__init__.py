"""Faces as text: one module a format, each from `Faces` to the text of a file."""
