"""WebDataset shards: reading anybody's, and packing any source into them."""
