"""CoReS: reasoning segmentation with chains of reasoning and segmenting (arXiv 2404.05673)."""

__version__ = "0.1.0.dev0"
