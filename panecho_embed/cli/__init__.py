"""The command line: one command a file; a command parses, calls the library function of its name, and prints."""
