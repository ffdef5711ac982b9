"""The HTTP API. It needs `pip install 'latentmill[api]'`."""

from producer.api.app import make_app

__all__ = ["make_app"]
