"""The models: PanEcho, the encoders it is compared with, and how their weights are found, fetched and checked."""
