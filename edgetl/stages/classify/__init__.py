"""The stages of a classification study."""
