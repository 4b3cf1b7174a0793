"""The command line: reading options and printing; the work is done by functions of the library."""
