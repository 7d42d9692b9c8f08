#include "orientation.h"

#include <algorithm>
#include <cstring>

namespace {

// Numbers of a TIFF header, which says in which order their bytes are. Nothing past the end is read.
class TiffNumbers {
  public:
    TiffNumbers(const std::uint8_t* data, std::size_t size, bool little) : data_(data), size_(size), little_(little) {}

    bool has(std::size_t position, std::size_t count) const { return position <= size_ && count <= size_ - position; }
    std::uint32_t short_at(std::size_t position) const { return number(position, 2); }
    std::uint32_t long_at(std::size_t position) const { return number(position, 4); }

  private:
    std::uint32_t number(std::size_t position, std::size_t count) const {
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < count; ++i) {
            value = value << 8 | data_[position + (little_ ? count - 1 - i : i)];
        }
        return value;
    }

    const std::uint8_t* data_;
    std::size_t size_;
    bool little_;
};

}  // namespace

int exif_orientation(const std::uint8_t* exif, std::size_t size) {
    constexpr std::size_t entry_bytes = 12;
    constexpr std::uint32_t orientation_tag = 0x0112, short_type = 3;
    if (size >= 6 && std::memcmp(exif, "Exif\0\0", 6) == 0) exif += 6, size -= 6;
    const bool little = size >= 4 && std::memcmp(exif, "II*\0", 4) == 0;
    if (size < 8 || !(little || std::memcmp(exif, "MM\0*", 4) == 0)) return 1;
    const TiffNumbers tiff(exif, size, little);
    const std::size_t start = tiff.long_at(4);
    if (!tiff.has(start, 2)) return 1;
    const std::size_t num_entries = tiff.short_at(start);
    for (std::size_t i = 0; i < num_entries; ++i) {
        const std::size_t entry = start + 2 + i * entry_bytes;
        if (!tiff.has(entry, entry_bytes)) return 1;
        if (tiff.short_at(entry) != orientation_tag) continue;
        const std::uint32_t value = tiff.short_at(entry + 8);
        return tiff.short_at(entry + 2) == short_type && 1 <= value && value <= 8 ? int(value) : 1;
    }
    return 1;
}

Size upright(Size size, int orientation) {
    if (orientation >= 5) std::swap(size.height, size.width);
    return size;
}

Image upright(Image image, int orientation) {
    if (orientation == 1) return image;
    const bool transposed = orientation >= 5;
    const bool bottom_first = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
    const bool right_first = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    Image turned(upright(image.size, orientation), image.channels);
    for (int y = 0; y < turned.size.height; ++y) {
        for (int x = 0; x < turned.size.width; ++x) {
            const int from_y = bottom_first ? turned.size.height - 1 - y : y;
            const int from_x = right_first ? turned.size.width - 1 - x : x;
            const std::uint8_t* from = transposed ? image.row(from_x) + std::size_t(from_y) * image.channels
                                                  : image.row(from_y) + std::size_t(from_x) * image.channels;
            std::copy_n(from, image.channels, turned.row(y) + std::size_t(x) * image.channels);
        }
    }
    return turned;
}
