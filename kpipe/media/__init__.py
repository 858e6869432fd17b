"""Pictures, video files and cameras."""
