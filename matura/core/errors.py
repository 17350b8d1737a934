"""The errors that are for people: the command line prints the message, without a traceback, and exits 1."""


class MaturaError(Exception):
    """Something a person can put right. The message says what is wrong, where, and what to do next."""


class ConfigError(MaturaError):
    """A setting, a recipe or a stage's config is wrong."""


class ArtifactError(MaturaError):
    """An artifact is missing, was interrupted, was changed after it was made, or cannot be written."""


class ModelNotFound(MaturaError):  # noqa: N818
    """A model reference leads nowhere, or what it leads to cannot be fetched."""


class GateFailed(MaturaError):  # noqa: N818
    """A stage judged its model and the model did not pass."""


class FormatError(MaturaError):
    """A file that came from outside is broken, or is not what it claims to be."""
