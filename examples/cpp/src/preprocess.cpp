#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "decode.h"
#include "resize.h"

namespace {

constexpr std::int64_t max_resized_pixels = 50'000'000;

// A JPEG may be decoded at a reduced size where it keeps so many times the rows and columns of the resized image.
constexpr double kept_for_resize = 2.9;

// Returns the size that an image gets before the centre of `spec.size` is cut out. The geometry is timm's, which for
// square inputs is torchvision's: there the longer side is cut off to whole pixels, else rounded.
Size resized_size(Size size, const InputSpec& spec) {
    const double height = size.height, width = size.width;
    const int scaled_H = int(std::floor(spec.size.height / spec.crop_pct));
    const int scaled_W = int(std::floor(spec.size.width / spec.crop_pct));
    double resized_H = scaled_H, resized_W = scaled_W;
    if (!spec.squash && scaled_H == scaled_W) {
        if (height <= width) {
            resized_W = std::trunc(scaled_H * width / height);
        } else {
            resized_H = std::trunc(scaled_W * height / width);
        }
    } else if (!spec.squash) {
        const double ratio = std::min(height / scaled_H, width / scaled_W);
        resized_H = std::max(std::nearbyint(height / ratio), 1.0);
        resized_W = std::max(std::nearbyint(width / ratio), 1.0);
    }
    if (resized_H * resized_W > double(max_resized_pixels)) {
        throw Error("it is so long and thin that it would be resized to more than " + with_commas(max_resized_pixels) +
                    " pixels");
    }
    return {int(resized_H), int(resized_W)};
}

// Returns the centre; black stands around where the image is smaller.
Image centre_of(const Image& image, Size size) {
    // Halves are rounded to even, as Python's `round` does.
    const auto offset = [](int had, int wanted) {
        return had >= wanted ? int(std::nearbyint((had - wanted) / 2.0)) : -((wanted - had) / 2);
    };
    const int top = offset(image.size.height, size.height), left = offset(image.size.width, size.width);
    Image centre(size, image.channels);
    const int first_x = std::max(left, 0), end_x = std::min(left + size.width, image.size.width);
    for (int y = 0; y < size.height; ++y) {
        if (top + y < 0 || top + y >= image.size.height) continue;
        const std::uint8_t* from = image.row(top + y) + std::size_t(first_x) * image.channels;
        std::uint8_t* to = centre.row(y) + std::size_t(first_x - left) * image.channels;
        std::memcpy(to, from, std::size_t(end_x - first_x) * image.channels);
    }
    return centre;
}

// Returns how much is picture of an image that was decoded at a half, a quarter or an eighth of `full`, rounded up.
Extent picture_in(Size decoded, Size full) {
    for (int factor : {1, 2, 4, 8}) {
        if (Size{(full.height + factor - 1) / factor, (full.width + factor - 1) / factor} == decoded) {
            return {float(double(full.height) / factor), float(double(full.width) / factor)};
        }
    }
    throw Error("it was decoded at a size that is none of its fractions");
}

}  // namespace

Image to_input(const Bytes& file, const InputSpec& spec) {
    const auto enough = [&](Size full) {
        const Size wanted = resized_size(full, spec);
        return Size{int(std::ceil(kept_for_resize * wanted.height)), int(std::ceil(kept_for_resize * wanted.width))};
    };
    Decoded decoded = decode(file, spec.channels, enough);
    if (spec.crop_pct == 1 && decoded.image.size == spec.size) return std::move(decoded.image);
    const Size wanted = resized_size(decoded.full_size, spec);
    if (decoded.image.size != wanted) {
        const Extent extent = picture_in(decoded.image.size, decoded.full_size);
        decoded.image = resized(decoded.image, wanted, spec.interpolation, extent);
    }
    return centre_of(decoded.image, spec.size);
}

std::vector<float> normalised(const Image& image, const InputSpec& spec) {
    const std::size_t num_pixels = std::size_t(image.size.height) * image.size.width;
    std::vector<float> planes(num_pixels * image.channels);
    for (int c = 0; c < image.channels; ++c) {
        const float scale = float(1 / (255 * spec.std[std::size_t(c)]));
        const float bias = float(-spec.mean[std::size_t(c)] / spec.std[std::size_t(c)]);
        for (std::size_t i = 0; i < num_pixels; ++i) {
            planes[std::size_t(c) * num_pixels + i] = float(image.pixels[i * image.channels + c]) * scale + bias;
        }
    }
    return planes;
}
