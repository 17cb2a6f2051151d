"""Questions about more pictures than one process can answer: planned once, answered by many workers, kept by parts."""
