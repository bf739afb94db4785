"""ONNX in, ONNX out: what a graph computes, and the precision that is written in its types and Q/DQ nodes."""
