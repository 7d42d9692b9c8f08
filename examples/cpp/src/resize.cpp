// Every pixel of the result is a weighted mean of all pixels below it: the filter is as wide as the pixel is in the
// source, which is what "antialiased" means. Columns and rows are filtered one after the other. Weights are whole
// numbers of 2^-22 and each pass rounds to 8 bits; where the same roundings are made, the result is the same.

#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int weight_bits = 22;
constexpr double pi = 3.14159265358979323846;

struct Filter {
    const char* name;
    double radius;  // in pixels of the larger of source and result
    double (*weight)(double distance);
};

double bilinear(double x) {
    return std::max(1 - std::fabs(x), 0.0);
}

// Keys' cubic convolution, a = -1/2.
double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

double sinc(double x) {
    return x == 0 ? 1 : std::sin(x * pi) / (x * pi);
}

double lanczos(double x) {
    return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

constexpr Filter filters[] = {{"bilinear", 1, bilinear}, {"bicubic", 2, bicubic}, {"lanczos", 3, lanczos}};

// Of which pixels one of the result is the mean, from `first` on.
struct Taps {
    int first;
    std::vector<std::int32_t> weights;
};

// Returns the taps of each of `to` pixels along one side of `from` pixels, `extent` of which are picture.
std::vector<Taps> taps_along(int from, float extent, int to, const Filter& filter) {
    const double scale = double(extent) / to, shrinks = std::max(scale, 1.0), radius = filter.radius * shrinks;
    std::vector<Taps> all;
    for (int i = 0; i < to; ++i) {
        const double centre = (i + 0.5) * scale;
        const int first = std::max(int(centre - radius + 0.5), 0), end = std::min(int(centre + radius + 0.5), from);
        std::vector<double> exact;
        double sum = 0;
        for (int at = first; at < end; ++at) {
            exact.push_back(filter.weight((at - centre + 0.5) * (1 / shrinks)));
            sum += exact.back();
        }
        Taps taps{first, {}};
        for (double weight : exact) {
            const double scaled = (sum != 0 ? weight / sum : weight) * (1 << weight_bits);
            taps.weights.push_back(std::int32_t(scaled + (scaled < 0 ? -0.5 : 0.5)));
        }
        all.push_back(std::move(taps));
    }
    return all;
}

std::uint8_t rounded(std::int32_t sum) {
    return std::uint8_t(std::clamp(sum >> weight_bits, 0, 255));
}

constexpr std::int32_t half = 1 << (weight_bits - 1);

Image narrowed(const Image& image, int width, float extent, const Filter& filter) {
    const std::vector<Taps> taps = taps_along(image.size.width, extent, width, filter);
    Image result({image.size.height, width}, image.channels);
    for (int y = 0; y < image.size.height; ++y) {
        std::uint8_t* to = result.row(y);
        for (const Taps& tap : taps) {
            const std::uint8_t* first = image.row(y) + std::size_t(tap.first) * image.channels;
            for (int c = 0; c < image.channels; ++c) {
                std::int32_t sum = half;
                const std::uint8_t* from = first + c;
                for (std::int32_t weight : tap.weights) sum += *from * weight, from += image.channels;
                *to++ = rounded(sum);
            }
        }
    }
    return result;
}

Image lowered(const Image& image, int height, float extent, const Filter& filter) {
    const std::vector<Taps> taps = taps_along(image.size.height, extent, height, filter);
    Image result({height, image.size.width}, image.channels);
    std::vector<std::int32_t> sums(image.row_bytes());
    for (int y = 0; y < height; ++y) {
        std::fill(sums.begin(), sums.end(), half);
        int from_y = taps[std::size_t(y)].first;
        for (std::int32_t weight : taps[std::size_t(y)].weights) {
            const std::uint8_t* from = image.row(from_y++);
            for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += from[i] * weight;
        }
        std::transform(sums.begin(), sums.end(), result.row(y), rounded);
    }
    return result;
}

// Returns which of `from` pixels each of `to` shows; added up step by step, as Pillow does, not multiplied.
std::vector<int> nearest_along(float extent, int to) {
    const double step = double(extent) / to;
    double place = step * 0.5;
    std::vector<int> all;
    for (int i = 0; i < to; ++i, place += step) all.push_back(int(place));
    return all;
}

Image nearest(const Image& image, Size size, Extent extent) {
    const std::vector<int> rows = nearest_along(extent.height, size.height);
    const std::vector<int> columns = nearest_along(extent.width, size.width);
    Image result(size, image.channels);
    for (int y = 0; y < size.height; ++y) {
        if (rows[std::size_t(y)] >= image.size.height) continue;
        for (int x = 0; x < size.width; ++x) {
            const int from_x = columns[std::size_t(x)];
            if (from_x >= image.size.width) continue;
            const std::uint8_t* from = image.row(rows[std::size_t(y)]) + std::size_t(from_x) * image.channels;
            std::copy_n(from, image.channels, result.row(y) + std::size_t(x) * image.channels);
        }
    }
    return result;
}

const Filter* find_filter(const std::string& name) {
    const auto* found =
        std::find_if(std::begin(filters), std::end(filters), [&](auto& one) { return one.name == name; });
    return found == std::end(filters) ? nullptr : found;
}

}  // namespace

bool is_interpolation(const std::string& name) {
    return name == "nearest" || find_filter(name) != nullptr;
}

Image resized(const Image& image, Size size, const std::string& interpolation, Extent extent) {
    const bool whole_height = extent.height == float(size.height), whole_width = extent.width == float(size.width);
    if (image.size == size && whole_height && whole_width) return image;
    const Filter* filter = find_filter(interpolation);
    if (filter == nullptr) return nearest(image, size, extent);
    // Pillow since release 13: rows and columns in the order that is less work where the height shrinks most.
    const int less_height = image.size.height - size.height, less_width = image.size.width - size.width;
    const bool height_first = less_height > 0 && less_height > 2 * less_width;
    Image result = image;
    for (const bool height : {height_first, !height_first}) {
        if (height && !(result.size.height == size.height && whole_height)) {
            result = lowered(result, size.height, extent.height, *filter);
        } else if (!height && !(result.size.width == size.width && whole_width)) {
            result = narrowed(result, size.width, extent.width, *filter);
        }
    }
    return result;
}
