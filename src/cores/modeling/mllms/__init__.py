"""Multimodal LLMs, one adapter a family."""
