"""From a split to normalised batches on the device; what is done to training images only."""
