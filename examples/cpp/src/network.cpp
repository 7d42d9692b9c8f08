#include "network.h"

#include <algorithm>

namespace {

constexpr const char* where_from = "; the README beside this program says where it comes from";

}  // namespace

std::unique_ptr<Network> open_network(const RuntimeChoice& choice, const std::filesystem::path& graph,
                                      const InputSpec& input) {
#ifdef WITH_ONNXRUNTIME
    if (choice.name.empty() || choice.name == "onnxruntime") return open_onnxruntime(choice, graph, input);
#endif
#ifdef WITH_MIGRAPHX
    if (choice.name.empty() || choice.name == "migraphx") return open_migraphx(choice, graph, input);
#endif
    (void)graph, (void)input;
    if (choice.name.empty()) throw Error(std::string("this program was built without a runtime") + where_from);
    if (choice.name == "onnxruntime" || choice.name == "migraphx") {
        throw Error("this program was built without " + choice.name + where_from);
    }
    throw Error("no runtime `" + choice.name + "`; use onnxruntime or migraphx");
}

void check_input_shape(const std::vector<std::int64_t>& shape, const InputSpec& input) {
    const std::vector<std::int64_t> expected{input.channels, input.size.height, input.size.width};
    if (shape.size() == 4 && std::equal(expected.begin(), expected.end(), shape.begin() + 1)) return;
    std::string found;
    for (std::int64_t side : shape) found += (found.empty() ? "" : " x ") + (side > 0 ? std::to_string(side) : "N");
    throw Error("its graph takes " + found + ", and `input` says " + std::to_string(expected[0]) + " x " +
                std::to_string(expected[1]) + " x " + std::to_string(expected[2]));
}
