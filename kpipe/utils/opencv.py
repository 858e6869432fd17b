"""OpenCV, or one clear sentence on why it does not load."""

try:
    import cv2
except ImportError as error:
    raise ImportError(
        f"OpenCV does not load ({error}). On a machine without a display install the build that "
        "needs none: pip uninstall -y opencv-python; pip install 'opencv-python-headless<5'"
    ) from error

__all__ = ["cv2"]
