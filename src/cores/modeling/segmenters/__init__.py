"""Promptable segmenters, one adapter a family."""
