"""What outlives a process. The servers have a module each: ledger, objects, broker."""

from storage.errors import (
    BadOutput,
    BrokerUnavailable,
    Canceled,
    ClaimLost,
    DeadlineExceeded,
    DeviceFailed,
    InputUnavailable,
    InvalidImage,
    InvalidModel,
    InvalidSpec,
    JobFailed,
    KeyConflict,
    LatentmillError,
    LedgerUnavailable,
    NotConfigured,
    NotFound,
    ObjectsUnavailable,
    Unavailable,
    UnknownModel,
    WorkerLost,
)
from storage.settings import Settings, load_settings
from storage.spec import Img2Img, Spec, Step, Text2Img, make_step, parse_spec

__all__ = [  # noqa: RUF022 - grouped
    # What was asked for
    "Spec",
    "Step",
    "Text2Img",
    "Img2Img",
    "make_step",
    "parse_spec",
    # Where everything is
    "Settings",
    "load_settings",
    # What went wrong
    "LatentmillError",
    "InvalidSpec",
    "InvalidImage",
    "UnknownModel",
    "InvalidModel",
    "NotFound",
    "KeyConflict",
    "NotConfigured",
    "Unavailable",
    "LedgerUnavailable",
    "BrokerUnavailable",
    "ObjectsUnavailable",
    "InputUnavailable",
    "DeviceFailed",
    "JobFailed",
    "BadOutput",
    "Canceled",
    "DeadlineExceeded",
    "WorkerLost",
    "ClaimLost",
]
