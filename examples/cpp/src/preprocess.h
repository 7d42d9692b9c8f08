// From pixels of any size to what a network sees: Pillow's resize, the centre cut out, mean and deviation.
#pragma once

#include <string>
#include <vector>

#include "files.h"
#include "image.h"

// `input` of a bundle's bundle.json.
struct InputSpec {
    int channels = 0;
    Size size;
    std::vector<double> mean, std;  // of pixels scaled to 0-1, one a channel
    std::string interpolation;      // nearest, bilinear, bicubic or lanczos
    double crop_pct = 1;            // an image is resized to `size` / crop_pct before its centre is cut out
    bool squash = false;            // stretched to that size, instead of keeping its aspect ratio
};

// Returns the image in an encoded file as the network sees it: uint8, of the spec's size.
Image to_input(const Bytes& file, const InputSpec& spec);

// Returns channels x height x width numbers: pixel / 255, less the mean, by the deviation.
std::vector<float> normalised(const Image& image, const InputSpec& spec);
