#include "bundle.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "resize.h"

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::uintmax_t max_json_bytes = 64u << 20;
constexpr int max_json_depth = 16;
constexpr int newest_format = 2;

json read_json(const fs::path& path) {
    const auto limit_depth = [](int depth, json::parse_event_t, json&) {
        if (depth > max_json_depth) throw Error("it is nested too deep");
        return true;
    };
    try {
        const json value = json::parse(read_file(path, max_json_bytes), limit_depth);
        if (!value.is_object()) throw Error("it holds no object");
        return value;
    } catch (const json::exception& error) {
        throw Error("`" + path.string() + "` is not valid JSON: " + error.what());
    } catch (const Error& error) {
        throw Error("`" + path.string() + "`: " + error.what());
    }
}

// Returns `table[key]` as a T; what is missing or of another type is named.
template <typename T>
T field(const json& table, const char* key) {
    const auto found = table.find(key);
    if (found == table.end()) throw Error(std::string("it has no `") + key + "`");
    try {
        if constexpr (std::is_same_v<T, int>) {  // which nlohmann would round, or cut to its last bits
            const bool whole = found->is_number_integer() && std::fabs(found->get<double>()) <= 1e9;
            if (!whole) throw Error("a whole number of at most nine digits is expected");
        }
        return found->get<T>();
    } catch (const std::exception& error) {
        throw Error(std::string("`") + key + "`: " + error.what());
    }
}

void expect(bool holds, const std::string& otherwise) {
    if (!holds) throw Error(otherwise);
}

InputSpec parse_input(const json& values) {
    InputSpec spec;
    spec.channels = field<int>(values, "channels");
    spec.size = {field<int>(values, "height"), field<int>(values, "width")};
    spec.mean = field<std::vector<double>>(values, "mean");
    spec.std = field<std::vector<double>>(values, "std");
    spec.interpolation = field<std::string>(values, "interpolation");
    spec.crop_pct = field<double>(values, "crop_pct");
    const std::string crop_mode = field<std::string>(values, "crop_mode");
    spec.squash = crop_mode == "squash";
    expect(spec.channels == 1 || spec.channels == 3, "`input.channels` is neither 1 nor 3");
    for (int side : {spec.size.height, spec.size.width}) {
        expect(1 <= side && side <= 8192, "`input` has a side of " + std::to_string(side) + ", expected 1 to 8192");
    }
    const std::size_t channels = std::size_t(spec.channels);
    expect(spec.mean.size() == channels && spec.std.size() == channels, "`input` has not one mean and std a channel");
    for (double std : spec.std) expect(std > 0, "`input.std` is not above 0");
    expect(is_interpolation(spec.interpolation),
           "`input.interpolation` is `" + spec.interpolation + "`, not known here");
    expect(0.1 <= spec.crop_pct && spec.crop_pct <= 1, "`input.crop_pct` is not from 0.1 to 1");
    expect(spec.squash || crop_mode == "center", "`input.crop_mode` is `" + crop_mode + "`, not known here");
    return spec;
}

std::vector<std::string> parse_labels(const json& manifest) {
    auto labels = field<std::vector<std::string>>(manifest, "labels");
    expect(!labels.empty(), "`labels` is empty");
    const std::set<std::string> different(labels.begin(), labels.end());
    expect(different.size() == labels.size() && different.count("") == 0, "`labels` are not all different texts");
    return labels;
}

// Returns `name` below `folder`; a file of a bundle lies in it, and no name leads out.
fs::path inside(const fs::path& folder, const std::string& name) {
    const fs::path relative(name);
    bool leaves = name.empty() || relative.is_absolute();
    for (const fs::path& part : relative) leaves = leaves || part == "..";
    expect(!leaves, "`" + name + "` is no file of the bundle");
    return folder / relative;
}

std::vector<Canary> parse_canaries(const json& manifest, const fs::path& folder,
                                   const std::vector<std::string>& labels) {
    std::vector<Canary> canaries;
    for (const json& item : field<std::vector<json>>(manifest, "canaries")) {
        Canary canary{inside(folder, field<std::string>(item, "file")), {}};
        const json logits = field<json>(item, "logits");
        expect(logits.size() == labels.size(), "a canary has not one logit a label");
        for (const std::string& label : labels) canary.logits.push_back(float(field<double>(logits, label.c_str())));
        canaries.push_back(std::move(canary));
    }
    expect(!canaries.empty(), "it has no canaries");
    return canaries;
}

// Returns the file `name` in `folder`, which has the size that `manifest` lists.
fs::path listed_file(const json& manifest, const fs::path& folder, const std::string& name) {
    const fs::path path = inside(folder, name);
    const auto size = field<std::uintmax_t>(field<json>(field<json>(manifest, "files"), name.c_str()), "size_bytes");
    std::error_code failed;
    expect(fs::file_size(path, failed) == size && !failed, "`" + name + "` is missing or not of the size listed");
    return path;
}

// Takes the graph from the bundle's export, with what it answered to the canaries when it was made.
void take_export(Bundle& bundle, const fs::path& folder) {
    const fs::path place = folder / "exports" / "onnx-fp32";
    if (!fs::exists(place / "export.json")) {
        throw Error("it holds no graph; make one: linne export " + folder.string() + " --to onnx");
    }
    const json manifest = read_json(place / "export.json");
    bundle.graph = listed_file(manifest, place, field<std::string>(manifest, "main"));
    const auto rows = field<std::vector<std::vector<float>>>(manifest, "canary_logits");
    expect(rows.size() == bundle.canaries.size(), "its export has answers to other canaries");
    for (std::size_t i = 0; i < rows.size(); ++i) {
        expect(rows[i].size() == bundle.labels.size(), "its export has other labels; make it again");
        bundle.canaries[i].logits = rows[i];
    }
}

}  // namespace

Bundle open_bundle(const fs::path& folder) {
    try {
        const json manifest = read_json(folder / "bundle.json");
        const int format = field<int>(manifest, "format");
        expect(1 <= format && format <= newest_format,
               "it is of format " + std::to_string(format) + ", not known here");
        Bundle bundle;
        bundle.labels = parse_labels(manifest);
        bundle.input = parse_input(field<json>(manifest, "input"));
        bundle.canaries = parse_canaries(manifest, folder, bundle.labels);
        if (field<std::string>(field<json>(manifest, "model"), "provider") == "onnx") {
            bundle.graph = listed_file(manifest, folder, "model.onnx");
        } else {
            take_export(bundle, folder);
        }
        return bundle;
    } catch (const Error& error) {
        throw Error("bundle `" + folder.string() + "`: " + error.what());
    }
}
