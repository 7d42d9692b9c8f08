// Pillow's resize of 8-bit images, to the bit.
#pragma once

#include <string>

#include "image.h"

// Rows and columns of an image that are picture; the last may be only partly.
struct Extent {
    float height, width;
};

// Returns whether `resized` knows an interpolation of that name.
bool is_interpolation(const std::string& name);

Image resized(const Image& image, Size size, const std::string& interpolation, Extent extent);
