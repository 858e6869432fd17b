"""Faces drawn on pictures, plotted over time, shown in a window."""
