"""A detector trained by its config, jointly or in the paper's four alternating steps."""
