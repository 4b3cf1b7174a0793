"""What makes the pages: `python -m docs.generate` from the root of the repository."""
