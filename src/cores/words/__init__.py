"""The chain in words: boxes said in text by an instruct model prompt a segmenter, level by level; nothing is trained."""
