"""Models on disk: `load.load` reads them strictly, `save.save` writes them whole, `merge.merge` makes one of a run."""
