"""How good it is: errors of landmarks, recall and precision of faces, and time."""
