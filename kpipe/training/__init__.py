"""Training and export of the network. The only package that imports torch: the extra `train`."""
