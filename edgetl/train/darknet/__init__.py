"""Darknet's networks (Redmon et al., YOLOv2 to v4 and their kin): .cfg and .weights files as PyTorch modules."""
