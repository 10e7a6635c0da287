"""What `doctor` looks at, one module per part of the machine. Nothing here changes anything."""
