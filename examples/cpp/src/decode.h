// From the bytes of an image file to pixels, by the rules of linne (docs/concepts/decoding.md).
#pragma once

#include <functional>

#include "files.h"
#include "image.h"

constexpr std::uintmax_t max_image_bytes = 256u << 20;
constexpr std::int64_t max_pixels = 50'000'000;
constexpr int max_side = 100'000;

// From the size of the whole image, upright, to the fewest rows and columns that are wanted of it.
using Enough = std::function<Size(Size)>;

struct Decoded {
    Image image;
    // Of the whole image, also where `image` is a half, a quarter or an eighth of it.
    Size full_size;
};

// Returns a JPEG or PNG, recognised by its content: upright, on white, of `channels` channels.
// A large JPEG is decoded at a half, a quarter or an eighth where that leaves what `enough` asks for.
Decoded decode(const Bytes& data, int channels, const Enough& enough);

Decoded decode_jpeg(const Bytes& data, int channels, const Enough& enough);
Decoded decode_png(const Bytes& data, int channels);

// Throws Error for an image of more pixels than are accepted.
void check_size(std::int64_t height, std::int64_t width);

// Returns an image of `channels` channels: grey is repeated, of colours the luma of ITU-R 601 is taken.
Image to_channels(Image image, int channels);
