"""What can be wrong with a checkpoint or with a pipeline's input, as sentences for people."""


class CheckpointError(ValueError):
    """A checkpoint cannot be used: a file, a configuration value or a weight is not as needed."""


class HubError(RuntimeError):
    """The Hugging Face hub did not answer, and the cache has not what is needed; this may pass."""


class PipelineInputError(ValueError):
    """A value given to a pipeline is outside what it accepts."""
