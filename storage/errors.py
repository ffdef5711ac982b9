"""Every error that reaches a user or the ledger, as one tree.

`code` is stable and machine-readable: it is what the ledger stores and what programs match on.
`retryable` says whether the same job may succeed later, unchanged.
"""


class LatentmillError(Exception):
    code = "error"
    retryable = False


# What the user asked for cannot be done as asked.


class InvalidSpec(LatentmillError):
    code = "invalid_spec"


class InvalidImage(LatentmillError):
    code = "invalid_image"


class UnknownModel(LatentmillError):
    code = "unknown_model"


class InvalidModel(LatentmillError):
    """The model is known, but its checkpoint cannot be loaded."""

    code = "invalid_model"


class NotFound(LatentmillError):
    code = "not_found"


class KeyConflict(LatentmillError):
    """The idempotency key belongs to a job with another spec."""

    code = "key_conflict"


class NotConfigured(LatentmillError):
    code = "not_configured"


# What may pass.


class Unavailable(LatentmillError):
    code = "unavailable"
    retryable = True


class LedgerUnavailable(Unavailable):
    code = "ledger_unavailable"


class BrokerUnavailable(Unavailable):
    code = "broker_unavailable"


class ObjectsUnavailable(Unavailable):
    code = "objects_unavailable"


class DeviceFailed(Unavailable):
    code = "device_failed"


# What became of a job.


class JobFailed(LatentmillError):
    """Raised to whoever waits; `code` is the job's own error code."""

    def __init__(self, job_id: str, error_code: str, message: str) -> None:
        super().__init__(f"job {job_id} failed ({error_code}): {message}")
        self.job_id = job_id
        self.code = error_code


class BadOutput(LatentmillError):
    """The model's result is not a picture: never a silent success."""

    code = "bad_output"


class WorkerLost(LatentmillError):
    """The job's worker vanished on every attempt that the job was allowed."""

    code = "worker_lost"


class ClaimLost(LatentmillError):
    """Another worker owns the job now: stop, and write nothing."""

    code = "claim_lost"
