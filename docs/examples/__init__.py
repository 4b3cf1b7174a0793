"""Programs that use this project, each run by a test."""
