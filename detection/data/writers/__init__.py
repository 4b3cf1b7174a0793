"""Data sets and detections as files of labels: COCO, Pascal VOC, YOLO, Label Studio."""
