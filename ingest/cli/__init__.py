"""The commands beside the engine itself, a module for each thing they work on."""
