"""The synthetic world: drawn scenes of objects with parts, every pixel and every answer known."""
