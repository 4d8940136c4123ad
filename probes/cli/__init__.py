"""`panecho-embed probe` and `panecho-embed audit`."""

from probes.cli.probing import probe as probe
