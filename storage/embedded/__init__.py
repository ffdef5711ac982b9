"""Real servers that pip installed, for one machine: a broker and an object store."""
