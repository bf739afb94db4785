"""Training detectors: frozen trunks with several maps, YOLO endings on them, their loss, and the joint tuning after."""
