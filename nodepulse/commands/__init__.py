"""One module per group of commands. Imported only when its command is called: `--version` stays quick."""
