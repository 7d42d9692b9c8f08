#include "decode.h"

#include <algorithm>
#include <initializer_list>

namespace {

bool starts_with(const Bytes& data, std::initializer_list<std::uint8_t> signature) {
    return data.size() >= signature.size() && std::equal(signature.begin(), signature.end(), data.begin());
}

}  // namespace

Decoded decode(const Bytes& data, int channels, const Enough& enough) {
    if (data.empty()) throw Error("the file is empty");
    if (starts_with(data, {0xFF, 0xD8, 0xFF})) return decode_jpeg(data, channels, enough);
    if (starts_with(data, {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'})) return decode_png(data, channels);
    throw Error("it is neither a JPEG nor a PNG");
}

void check_size(std::int64_t height, std::int64_t width) {
    const std::string size = with_commas(width) + " x " + with_commas(height) + " pixels";
    if (height * width > max_pixels) {
        throw Error("it has " + size + ", more than the " + with_commas(max_pixels) + " accepted");
    }
    if (std::max(height, width) > max_side) {
        throw Error("it has " + size + ", more than the " + with_commas(max_side) + " accepted in a row");
    }
}

Image to_channels(Image image, int channels) {
    if (image.channels == channels) return image;
    Image converted(image.size, channels);
    const std::size_t num_pixels = std::size_t(image.size.height) * image.size.width;
    const std::uint8_t* from = image.pixels.data();
    std::uint8_t* to = converted.pixels.data();
    for (std::size_t i = 0; i < num_pixels; ++i, from += image.channels, to += channels) {
        if (image.channels == 1) {
            std::fill_n(to, channels, from[0]);
        } else {  // 0.299, 0.587 and 0.114 in 65536ths
            *to = std::uint8_t((19595u * from[0] + 38470u * from[1] + 7471u * from[2] + 32768u) >> 16);
        }
    }
    return converted;
}
