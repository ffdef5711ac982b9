"""Measuring a device, and trying the device loop's choices on measured times."""
