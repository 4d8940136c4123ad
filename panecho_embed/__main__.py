"""`python -m panecho_embed`: the same as the command `panecho-embed`."""

from panecho_embed.cli.main import main

if __name__ == "__main__":
    main()
