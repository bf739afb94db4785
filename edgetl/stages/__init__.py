"""The stages of a study: each reads one kind of artifact, writes the next, and composes the rooms below it."""
