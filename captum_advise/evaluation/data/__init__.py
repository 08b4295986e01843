"""What is evaluated: images, tables of them, mosaics and scenes, as items that are read once."""
