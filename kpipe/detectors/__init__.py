"""Where faces may be: networks and cascades, each from a gray picture to `Detections`."""
