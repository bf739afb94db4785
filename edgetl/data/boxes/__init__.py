"""Readers of annotated boxes, what is wrong with boxes, and splits in which every label has objects."""
