"""Tensors on disk, read and written one by one: safetensors, pickles that run nothing, DeepSpeed's shards."""
