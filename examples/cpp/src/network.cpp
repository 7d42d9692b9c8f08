#include "network.h"

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
    using Shape = std::vector<std::int64_t>;
    const Shape of_one(shape.begin() + (shape.empty() ? 0 : 1), shape.end());
    if (of_one == Shape{input.channels, input.size.height, input.size.width}) return;
    if (of_one == Shape{input.size.height, input.size.width, input.channels}) {
        throw Error("its graph scales pixels itself, which this program does; export it without --bake-preprocessing");
    }
    std::string found;
    for (std::int64_t side : shape) found += (found.empty() ? "" : " x ") + (side > 0 ? std::to_string(side) : "N");
    throw Error("its graph takes " + found + ", and `input` says " + std::to_string(input.channels) + " x " +
                std::to_string(input.size.height) + " x " + std::to_string(input.size.width));
}
