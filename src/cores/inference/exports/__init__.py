"""Answers in other programs' forms, one form a file. Answers about several pictures go by the pictures' names."""

from cores.inference.exports.coco import CocoFile, to_coco
from cores.inference.exports.detections import to_supervision
from cores.inference.exports.labelme import check_queries, to_labelme
from cores.inference.exports.tables import to_pandas, to_rows

__all__ = ["CocoFile", "check_queries", "to_coco", "to_labelme", "to_pandas", "to_rows", "to_supervision"]
