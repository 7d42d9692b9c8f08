// EXIF's orientation: how an image is to be turned to stand upright.
#pragma once

#include <cstddef>
#include <cstdint>

#include "image.h"

// Returns the orientation (1 to 8) that an EXIF block states for the main image, 1 where it states none or nonsense.
int exif_orientation(const std::uint8_t* exif, std::size_t size);

// Returns the image as it is to be seen. Exif 2.32, tag 0x0112: 6 means that the scene's top is the right edge.
Image upright(Image image, int orientation);

// Returns the size that an image of `size` has once it stands upright.
Size upright(Size size, int orientation);
