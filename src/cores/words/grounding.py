"""How each family of models says where something is: what it is asked, and what its numbers mean."""

from cores.geometry import Size
from cores.words.boxes import Box


class CORES:
    @staticmethod
    def locate(query: str) -> str:
        return f"{query} Please output the box of the location."

    @staticmethod
    def find(query: str, location: str = "") -> str:
        return f"{query} Please output the box in {location}." if location else f"{query} Please output the box."

    @staticmethod
    def say(box: Box, size: Size) -> str:
        h, w = size
        longest = max(size)
        left, top = (longest - w) // 2, (longest - h) // 2
        moved = (box[0] + left, box[1] + top, box[2] + left, box[3] + top)
        return "[" + ", ".join(f"{min(99, max(0, round(edge / longest * 99))):02d}" for edge in moved) + "]"
