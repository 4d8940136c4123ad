"""torch.hub entry point: `torch.hub.load("OWNER/REPOSITORY", "PanEcho")`, or of a checkout with `source="local"`."""

from panecho_embed.models.panecho import PanEcho

dependencies = ["numpy", "timm", "torch"]

__all__ = ["PanEcho"]
