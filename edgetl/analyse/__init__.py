"""Answers from what training left behind, before anything is built: numpy alone."""
