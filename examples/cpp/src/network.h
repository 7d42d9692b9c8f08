// A bundle's graph, run by one of the runtimes that this program was built with.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "preprocess.h"

class Network {
  public:
    virtual ~Network() = default;

    // Returns the logits of one image, as `normalised` gives it.
    virtual std::vector<float> logits(std::vector<float> image) = 0;
};

struct RuntimeChoice {
    std::string name;            // onnxruntime or migraphx; empty: the first that is built in
    std::string target = "gpu";  // of MIGraphX: gpu, or ref, which runs on any processor
    int threads = 0;             // of ONNX Runtime; 0: as many as there are cores
};

std::unique_ptr<Network> open_network(const RuntimeChoice& choice, const std::filesystem::path& graph,
                                      const InputSpec& input);

std::unique_ptr<Network> open_onnxruntime(const RuntimeChoice& choice, const std::filesystem::path& graph,
                                          const InputSpec& input);
std::unique_ptr<Network> open_migraphx(const RuntimeChoice& choice, const std::filesystem::path& graph,
                                       const InputSpec& input);

// Throws Error unless `shape` is N x channels x height x width of `input`; N, 0 or less where it is open, is not looked
// at.
void check_input_shape(const std::vector<std::int64_t>& shape, const InputSpec& input);
