"""Folders as labelling programs leave them: a reader for each, and which of them a folder is."""
