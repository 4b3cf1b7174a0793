"""What a user can mend: each message names the file, option or key, the value found, and the fix."""


class BackboneError(ValueError):
    """An unknown backbone, or options that it cannot be built with."""


class CheckpointError(ValueError):
    """A weights file is missing, damaged, unsafe, or of another model."""
