"""Taking a batch out: pictures and what is known about them, in the field's own forms."""

from producer.export.encoding import Encoding
from producer.export.export import FORMATS, export_batch
from producer.export.rows import Export, Outcome

__all__ = ["FORMATS", "Encoding", "Export", "Outcome", "export_batch"]
