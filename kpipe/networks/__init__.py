"""The ONNX networks at work."""
