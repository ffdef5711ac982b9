"""The producer: asks for pictures. It needs no MindSpore."""

from producer.client import Client
from producer.job import Job
from producer.request import Img2Img, Text2Img

__all__ = ["Client", "Img2Img", "Job", "Text2Img"]
