"""What lies on disk between the stages: each artifact's shape, lineage and way of being written whole."""
