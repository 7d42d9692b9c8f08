// Files as bytes, and the one kind of error that this program throws.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

using Bytes = std::vector<std::uint8_t>;

// What a person is told; one line.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// Returns the content of a regular file of at most `max_bytes`.
Bytes read_file(const std::filesystem::path& path, std::uintmax_t max_bytes);

void write_file(const std::filesystem::path& path, const Bytes& content);

// Returns `12,345,678`.
std::string with_commas(std::uintmax_t number);
