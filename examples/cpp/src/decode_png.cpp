// PNG by libpng, with every kind of transparency put on white.

#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "decode.h"
#include "orientation.h"

namespace {

// The file, and what libpng says of it.
struct Source {
    const Bytes* data = nullptr;
    std::size_t position = 0;
    bool ended = false;
    std::jmp_buf back;
    char reason[200] = "";
};

void read_bytes(png_structp png, png_bytep to, std::size_t count) {
    Source& source = *static_cast<Source*>(png_get_io_ptr(png));
    if (count > source.data->size() - source.position) {
        source.ended = true;
        png_error(png, "the file ends too early");
    }
    std::memcpy(to, source.data->data() + source.position, count);
    source.position += count;
}

[[noreturn]] void give_up(png_structp png, png_const_charp message) {
    Source& source = *static_cast<Source*>(png_get_error_ptr(png));
    std::snprintf(source.reason, sizeof source.reason, "%s", message);
    std::longjmp(source.back, 1);
}

void ignore(png_structp, png_const_charp) {}

std::uint8_t on_white(std::uint8_t value, std::uint8_t alpha) {
    // value x alpha + white x (1 - alpha), rounded as Pillow does it: in 128ths of a level, by 257 / 65536 for 1 / 255.
    const std::uint32_t mixed = 128u * (value * alpha + 255u * (255u - alpha)) + (128u << 7);
    return std::uint8_t(((mixed >> 8) + mixed) >> 8 >> 7);
}

// A PNG that is being read: pixels as libpng gives them, all to be shown and none yet on white.
class Png {
  public:
    explicit Png(const Bytes& data) {
        source_.data = &data;
        png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source_, give_up, ignore);
        if (png_ == nullptr) throw Error("libpng cannot be used");
        info_ = png_create_info_struct(png_);
        if (info_ == nullptr) {
            png_destroy_read_struct(&png_, nullptr, nullptr);
            throw Error("libpng cannot be used");
        }
    }

    ~Png() { png_destroy_read_struct(&png_, &info_, nullptr); }
    Png(const Png&) = delete;
    Png& operator=(const Png&) = delete;

    // Returns the image as it is stored, of 1 or 3 channels.
    Image pixels() {
        read_header();
        std::vector<std::uint8_t> samples(row_bytes_ * std::size_t(size_.height));
        std::vector<png_bytep> rows;
        for (int y = 0; y < size_.height; ++y) rows.push_back(samples.data() + std::size_t(y) * row_bytes_);
        if (!guarded([&] { png_read_image(png_, rows.data()); })) fail();
        // Behind the pixels there may be an orientation. A file that lacks only what comes after its pixels is whole.
        if (!guarded([&] { png_read_end(png_, info_); }) && !source_.ended) fail();
        return flat(rows);
    }

    int orientation() {
        png_bytep exif = nullptr;
        png_uint_32 size = 0;
        if (png_get_eXIf_1(png_, info_, &size, &exif) == 0 || exif == nullptr) return 1;
        return exif_orientation(exif, size);
    }

  private:
    void read_header() {
        int depth = 0, kind = 0;
        png_uint_32 width = 0, height = 0;
        const bool read = guarded([&] {
            png_set_read_fn(png_, &source_, read_bytes);
            png_set_user_limits(png_, unsigned(max_side), unsigned(max_side));
            png_read_info(png_, info_);
            png_get_IHDR(png_, info_, &width, &height, &depth, &kind, nullptr, nullptr, nullptr);
        });
        if (!read) fail();
        check_size(height, width);
        size_ = {int(height), int(width)};
        deep_ = depth == 16 && kind == PNG_COLOR_TYPE_GRAY;
        if (kind != PNG_COLOR_TYPE_PALETTE) note_transparent_colour(depth);
        const bool set = guarded([&] {
            if (kind == PNG_COLOR_TYPE_PALETTE) png_set_expand(png_);  // to RGB, or RGBA where it is transparent
            if (kind == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png_);
            if (depth == 16 && !deep_) png_set_strip_16(png_);  // the upper 8 bits, as Pillow
            png_set_interlace_handling(png_);
            png_read_update_info(png_, info_);
        });
        if (!set) fail();
        row_bytes_ = png_get_rowbytes(png_, info_);
        samples_ = png_get_channels(png_, info_);
    }

    // Keeps the colour that stands for transparent pixels, at the depth that pixels will have.
    void note_transparent_colour(int depth) {
        png_color_16p colour = nullptr;
        if (png_get_tRNS(png_, info_, nullptr, nullptr, &colour) == 0 || colour == nullptr) return;
        has_transparent_ = true;
        const auto at_8_bits = [&](int value) {
            return depth == 16 ? value >> 8 : depth < 8 ? value * 255 / ((1 << depth) - 1) : value;
        };
        const bool grey = png_get_color_type(png_, info_) == PNG_COLOR_TYPE_GRAY;
        transparent_[0] = grey ? (deep_ ? colour->gray : at_8_bits(colour->gray)) : at_8_bits(colour->red);
        transparent_[1] = at_8_bits(colour->green);
        transparent_[2] = at_8_bits(colour->blue);
    }

    // Returns 8 bits a channel, on white.
    Image flat(const std::vector<png_bytep>& rows) const {
        const int channels = samples_ >= 3 ? 3 : 1;
        Image image(size_, channels);
        for (int y = 0; y < size_.height; ++y) {
            const std::uint8_t* from = rows[std::size_t(y)];
            std::uint8_t* to = image.row(y);
            for (int x = 0; x < size_.width; ++x, from += deep_ ? 2 : samples_, to += channels)
                flatten(from, to, channels);
        }
        return image;
    }

    void flatten(const std::uint8_t* from, std::uint8_t* to, int channels) const {
        if (deep_) {
            const int value = from[0] << 8 | from[1];
            *to = has_transparent_ && value == transparent_[0] ? 255 : std::uint8_t((value + 128) / 257);
        } else if (samples_ > channels) {
            for (int c = 0; c < channels; ++c) to[c] = on_white(from[c], from[channels]);
        } else {
            const bool gone = has_transparent_ && std::equal(from, from + channels, transparent_);
            for (int c = 0; c < channels; ++c) to[c] = gone ? 255 : from[c];
        }
    }

    // Returns whether libpng came through `work`. Its errors come back by longjmp, which must not pass over objects
    // with destructors: `work` makes none.
    template <typename Work>
    bool guarded(const Work& work) {
        if (setjmp(source_.back) != 0) return false;
        work();
        return true;
    }

    [[noreturn]] void fail() const {
        throw Error(std::string(source_.ended ? "cut short" : "damaged") + " PNG (" + source_.reason + ")");
    }

    Source source_;
    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
    Size size_;
    std::size_t row_bytes_ = 0;
    int samples_ = 0;
    bool deep_ = false;  // grey of 16 bits
    bool has_transparent_ = false;
    int transparent_[3] = {0, 0, 0};
};

}  // namespace

Decoded decode_png(const Bytes& data, int channels) {
    Png png(data);
    Image stored = png.pixels();
    Image image = to_channels(upright(std::move(stored), png.orientation()), channels);
    const Size size = image.size;
    return {std::move(image), size};
}
