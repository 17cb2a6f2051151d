"""Training: transformers' Trainer with the chain's losses, its own order of samples, and runs that can be resumed."""
