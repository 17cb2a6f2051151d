"""The tiny base models, trained from scratch on drawn scenes: vision tower, segmenter, language model.

The one corner of `scenes` that may import `modeling`, `processing` and `training`.
"""
