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


class NotReady(LatentmillError):
    """It will be there later: the job has not ended."""

    code = "not_ready"


class Unauthorized(LatentmillError):
    """No key, or none that is known here."""

    code = "unauthorized"


class Forbidden(LatentmillError):
    """The key does not allow it."""

    code = "forbidden"


class LimitExceeded(LatentmillError):
    """The key's limits leave no room now; `retry_after` says after how many seconds they may."""

    code = "limit_exceeded"
    retryable = True

    def __init__(self, message: str, retry_after: float = 60.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLarge(LatentmillError):
    """The request has more bytes than are read."""

    code = "too_large"


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


class InputUnavailable(Unavailable):
    """The server of an input's URL does not answer, or not as it should."""

    code = "input_unavailable"


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


class Canceled(LatentmillError):
    """Somebody no longer wants the job."""

    code = "canceled"


class DeadlineExceeded(LatentmillError):
    """The job had not ended by its deadline."""

    code = "deadline_exceeded"


class WorkerLost(LatentmillError):
    """The job's worker vanished on every attempt that the job was allowed."""

    code = "worker_lost"


class ClaimLost(LatentmillError):
    """Another worker owns the job now: stop, and write nothing."""

    code = "claim_lost"
