"""Default settings that options name without loading the stages that they set."""

MIN_SCORE = 0.7
"""Faces with a lower score are not reported. All held-out faces, turned and reduced to as little as
16 pixels, have more; on 188 photographs without faces, each in three ways, 5 false faces do."""

TILTS = {"any": 180.0, "upright": 45.0}
"""Largest roll of a reported head (degrees), by the name of the option: `Pipeline.max_roll`."""

DETECT_EVERY = 0.4
"""Seconds from one detection in a video to the next: a new face shows within half a second."""
