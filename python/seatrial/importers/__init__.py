"""Other tools' logs as typed rows, read line by line, with what is odd about them said aloud."""
