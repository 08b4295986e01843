"""What is evaluated: images, tables of them, and mosaics, as items that are read once."""
