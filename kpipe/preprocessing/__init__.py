"""From a picture and a box to the crop that a network sees, and back."""
