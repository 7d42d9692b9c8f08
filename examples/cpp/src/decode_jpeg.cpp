// JPEG by libjpeg(-turbo), whose accurate integer transform is what Pillow and simplejpeg use as well.

#include <algorithm>
#include <csetjmp>
#include <cstddef>
#include <cstdio>

#include <jpeglib.h>  // which needs the two above

#include <jerror.h>  // which needs jpeglib.h

#include "decode.h"
#include "orientation.h"

namespace {

// Progressive JPEGs have about ten scans, each over every pixel: thousands in a small file would take minutes.
constexpr int max_scans = 100, always_enough_scans = 20;
constexpr std::int64_t max_scanned_pixels = 1'000'000'000;

constexpr int app1 = JPEG_APP0 + 1;

// What libjpeg reports, in the place where it looks for its own error manager.
struct Reports : jpeg_error_mgr {
    std::jmp_buf back;
    char reason[JMSG_LENGTH_MAX] = "";
    bool damaged = false;  // pixels are missing or wrong
    bool ended = false;    // the file did, before the image
    bool warned = false;   // of anything
};

Reports& reports_of(j_common_ptr jpeg) {
    return *static_cast<Reports*>(jpeg->err);
}

[[noreturn]] void give_up(j_common_ptr jpeg) {
    Reports& reports = reports_of(jpeg);
    reports.format_message(jpeg, reports.reason);
    std::longjmp(reports.back, 1);
}

void take_note(j_common_ptr jpeg, int level) {
    if (level >= 0) return;  // a trace, not a warning
    Reports& reports = reports_of(jpeg);
    reports.warned = true;
    switch (reports.msg_code) {
        case JWRN_JPEG_EOF:
            reports.ended = true;
            break;
        case JWRN_ARITH_BAD_CODE:
        case JWRN_HIT_MARKER:
        case JWRN_HUFF_BAD_CODE:
        case JWRN_MUST_RESYNC:
            if (!reports.damaged) reports.format_message(jpeg, reports.reason);
            reports.damaged = true;
            break;
        default:  // such as bytes too many between two scans, as some cameras write them: nothing is missing
            break;
    }
}

void count_scans(j_common_ptr jpeg) {
    const auto& info = *reinterpret_cast<j_decompress_ptr>(jpeg);
    const std::int64_t num_scans = info.input_scan_number;
    const std::int64_t num_pixels = std::int64_t(info.image_height) * info.image_width;
    if (num_scans > max_scans || (num_scans > always_enough_scans && num_scans * num_pixels > max_scanned_pixels)) {
        std::snprintf(reports_of(jpeg).reason, JMSG_LENGTH_MAX, "it has too many scans: made to take long");
        std::longjmp(reports_of(jpeg).back, 1);
    }
}

// A JPEG that is being read.
class Jpeg {
  public:
    Jpeg() {
        info_.err = jpeg_std_error(&reports_);
        reports_.error_exit = give_up;
        reports_.emit_message = take_note;
        guarded([&] { jpeg_create_decompress(&info_); });
        progress_.progress_monitor = count_scans;
        info_.progress = &progress_;
    }

    ~Jpeg() { jpeg_destroy_decompress(&info_); }
    Jpeg(const Jpeg&) = delete;
    Jpeg& operator=(const Jpeg&) = delete;

    // Reads what comes before the pixels; `data` is to live as long as this.
    void open(const Bytes& data) {
        guarded([&] {
            jpeg_mem_src(&info_, data.data(), static_cast<unsigned long>(data.size()));
            jpeg_save_markers(&info_, app1, 0xFFFF);
            jpeg_read_header(&info_, TRUE);
        });
        check_size(info_.image_height, info_.image_width);
        const J_COLOR_SPACE stored = info_.jpeg_color_space;
        if (stored != JCS_GRAYSCALE && stored != JCS_YCbCr && stored != JCS_RGB) {
            throw Error("it is a CMYK JPEG, or one of unknown colours; save it as RGB");
        }
    }

    Size size() const { return {int(info_.image_height), int(info_.image_width)}; }
    bool warned() const { return reports_.warned; }

    int orientation() const {
        int found = 1;
        for (auto* marker = info_.marker_list; marker != nullptr && found == 1; marker = marker->next) {
            const bool is_exif = marker->data_length >= 6 && std::equal(marker->data, marker->data + 6, "Exif\0\0");
            if (marker->marker == app1 && is_exif) found = exif_orientation(marker->data, marker->data_length);
        }
        return found;
    }

    // Returns the image at 1 / `factor` of its size, rounded up, as it is stored; can be called once.
    Image pixels(int factor, int channels) {
        info_.scale_num = 1;
        info_.scale_denom = unsigned(factor);
        info_.out_color_space = info_.jpeg_color_space == JCS_GRAYSCALE && channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
        guarded([&] { jpeg_calc_output_dimensions(&info_); });
        Image image({int(info_.output_height), int(info_.output_width)}, info_.output_components);
        guarded([&] {
            jpeg_start_decompress(&info_);
            while (info_.output_scanline < info_.output_height) {
                JSAMPROW row = image.row(int(info_.output_scanline));
                jpeg_read_scanlines(&info_, &row, 1);
            }
        });
        refuse_damage();
        read_end();
        return image;
    }

  private:
    // Reads on behind the pixels, only to hear what libjpeg has to say: nothing of the image is missing any more.
    void read_end() {
        try {
            guarded([&] { jpeg_finish_decompress(&info_); });
        } catch (const Error&) {
            reports_.warned = true;
        }
    }

    // Calls libjpeg. Its errors come back by longjmp, which must not pass over objects with destructors: `work` makes
    // none, and the exception is thrown only behind it.
    template <typename Work>
    void guarded(const Work& work) {
        if (setjmp(reports_.back) != 0) throw Error(std::string("damaged JPEG (") + reports_.reason + ")");
        work();
    }

    void refuse_damage() {
        if (reports_.damaged) throw Error(std::string("damaged JPEG (") + reports_.reason + ")");
        // Of one scan in Huffman's code all is there, or the decoder has said so; of others only the end shows it.
        if (reports_.ended && (jpeg_has_multiple_scans(&info_) || info_.arith_code)) {
            throw Error("cut short JPEG (the file ends before the image)");
        }
    }

    Reports reports_;
    jpeg_progress_mgr progress_{};
    jpeg_decompress_struct info_{};
};

// Returns by how much an image of `full` can be reduced and keep `least`. Powers of two only: libjpeg's other eighths
// differ by several levels on small photographs.
int factor_for(Size full, Size least) {
    for (int factor : {8, 4, 2}) {
        if (full.height / factor >= least.height && full.width / factor >= least.width) return factor;
    }
    return 1;
}

}  // namespace

Decoded decode_jpeg(const Bytes& data, int channels, const Enough& enough) {
    Jpeg jpeg;
    jpeg.open(data);
    const int orientation = jpeg.orientation();
    const Size full = upright(jpeg.size(), orientation);
    const int factor = factor_for(full, enough(full));
    Image image = jpeg.pixels(factor, channels);
    // As linne, which leaves what libjpeg warns of to Pillow: that decodes it whole.
    if (factor > 1 && jpeg.warned()) {
        Jpeg whole;
        whole.open(data);
        image = whole.pixels(1, channels);
    }
    return {to_channels(upright(std::move(image), orientation), channels), full};
}
