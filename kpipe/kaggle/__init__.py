"""Kaggle's Facial Keypoints Detection (2013): its files, and what its systems do with them."""
