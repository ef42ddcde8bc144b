"""The questions Seatrial can ask about a runtime, one file a question."""
