"""The command line. `process` is the entry point, `main` finds the command; each is a module, loaded when called."""
