#include "files.h"

#include <fstream>

namespace fs = std::filesystem;

Bytes read_file(const fs::path& path, std::uintmax_t max_bytes) {
    // Asked before opening: opening a named pipe would wait for a writer.
    std::error_code failed;
    const fs::file_status status = fs::status(path, failed);
    if (!fs::exists(status)) throw Error("there is no such file");
    if (fs::is_directory(status)) throw Error("it is a folder");
    if (!fs::is_regular_file(status)) throw Error("it is not a regular file");
    const std::uintmax_t size = fs::file_size(path);
    if (size > max_bytes) {
        throw Error("it has " + with_commas(size) + " bytes, more than the " + with_commas(max_bytes) + " accepted");
    }
    Bytes content(size);
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(size));
    if (!file || file.gcount() != static_cast<std::streamsize>(size)) throw Error("it cannot be read");
    return content;
}

void write_file(const fs::path& path, const Bytes& content) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    file.close();
    if (!file) throw Error("`" + path.string() + "` cannot be written");
}

std::string with_commas(std::uintmax_t number) {
    std::string digits = std::to_string(number);
    for (std::size_t place = digits.size(); place > 3;) digits.insert(place -= 3, ",");
    return digits;
}
