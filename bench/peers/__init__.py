"""The other libraries, each used as its own guide shows, in a process that imports nothing of atelier."""
