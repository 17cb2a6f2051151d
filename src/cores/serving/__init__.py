"""Serving: one model behind a queue, asked over HTTP by many at once."""
