"""torch.hub entry point: `torch.hub.load("OWNER/REPOSITORY", "PanEcho")`, or of a checkout with `source="local"`.

The model returns logits; with `activations=True` probabilities, as the released code does.
"""

from panecho_embed.models.panecho import PanEcho

dependencies = ["numpy", "timm", "torch"]

__all__ = ["PanEcho"]
