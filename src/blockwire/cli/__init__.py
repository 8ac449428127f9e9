"""The command line. `main` is the entry point; every command is a module that is loaded when it is called."""
