"""File formats that several sources share: JSON, COCO, masks in cells, polygons, pickles, picture headers."""
