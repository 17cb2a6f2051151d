"""The chain in words: boxes that an instruct model says in text prompt a segmenter; nothing is trained."""
