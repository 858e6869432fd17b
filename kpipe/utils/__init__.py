"""What all parts need: files, OpenCV, packaged resources."""
