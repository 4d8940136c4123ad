"""Reporting tasks: what a model's heads read from clips, per clip, video and study."""
