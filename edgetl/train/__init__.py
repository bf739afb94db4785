"""The only room with torch: backbones, cached features, heads, the trunk's graph."""
