"""Similar studies: search over the embeddings of a file, its quality, its duplicates and outliers, and a page."""

from panecho_embed.retrieval.collection import Collection, Items, SearchLevel
from panecho_embed.retrieval.filters import matches
from panecho_embed.retrieval.find import Found, Query, search, study_query, vector_query, video_query
from panecho_embed.retrieval.similarity import Measure

__all__ = [
    "Collection",
    "Found",
    "Items",
    "Measure",
    "Query",
    "SearchLevel",
    "matches",
    "search",
    "study_query",
    "vector_query",
    "video_query",
]
