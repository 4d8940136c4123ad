"""The page of `panecho-embed serve`, and the JSON API that it stands on."""
