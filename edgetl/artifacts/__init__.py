"""The records that stages write and read: their fields, their lineage, and how files are written whole."""
