"""The stages of a detection study."""
