"""Inference: encode a picture once, ask often, plain results."""
