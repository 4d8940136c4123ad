"""What commands import late, for processes that are killed: the kill should hit the work, not the imports."""

import faiss  # noqa: F401
import h5py  # noqa: F401
import matplotlib.figure  # noqa: F401
import pandas as pd  # noqa: F401
import pyarrow.parquet  # noqa: F401
import sklearn.linear_model  # noqa: F401
import torch  # noqa: F401

import panecho_embed.cli.main
import panecho_embed.finetuning.run
import panecho_embed.search.atlas
import panecho_embed.search.index  # noqa: F401
import probes.outputs  # noqa: F401
