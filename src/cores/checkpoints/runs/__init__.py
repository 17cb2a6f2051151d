"""What a training run keeps: where it started, what it learned, and how both become one plain model."""
