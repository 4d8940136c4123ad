"""Tests of panecho_embed.evaluation."""
