// An image in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

struct Size {
    int height = 0;
    int width = 0;

    bool operator==(const Size& other) const { return height == other.height && width == other.width; }
    bool operator!=(const Size& other) const { return !(*this == other); }
};

// Rows from the top, pixels from the left, each of `channels` bytes: 1 is grey, 3 are red, green and blue.
struct Image {
    Size size;
    int channels = 0;
    std::vector<std::uint8_t> pixels;

    // Black.
    Image(Size size, int channels)
        : size(size), channels(channels), pixels(std::size_t(size.height) * size.width * channels) {}

    std::size_t row_bytes() const { return std::size_t(size.width) * channels; }
    std::uint8_t* row(int y) { return pixels.data() + y * row_bytes(); }
    const std::uint8_t* row(int y) const { return pixels.data() + y * row_bytes(); }
};
