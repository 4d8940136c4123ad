"""What commands import late, for processes that are killed: the kill should hit the work, not the imports."""

import importlib

import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.models import backbones
from tests.tiny import tiny

for _name in (
    *("faiss", "h5py", "matplotlib.figure", "pandas", "pyarrow.parquet", "sklearn.linear_model"),
    *("panecho_embed.evaluation.comparison_report", "panecho_embed.extraction.run", "panecho_embed.finetuning.run"),
    *(
        "panecho_embed.prediction.run",
        "panecho_embed.retrieval.atlas",
        "panecho_embed.retrieval.index",
        "probes.outputs",
    ),
):
    importlib.import_module(_name)

# What a command says that was run again though it had ended: another finished result is never replaced unasked.
_FINISHED = ("fits; replace it", "finished run already", "is there already")


def run(words: list[str]) -> None:
    """Run a command, which may also find that it was done already; anything else that it says ends the process."""
    torch.set_num_threads(1)
    backbones._factories["tiny"] = lambda weights, seed: tiny()
    result = CliRunner().invoke(main, words)
    if result.exit_code and not any(told in result.output for told in _FINISHED):
        raise SystemExit(result.output or repr(result.exception))
