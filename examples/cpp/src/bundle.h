// A linne bundle, as far as it is needed to run its graph (docs/concepts/bundle.md).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "preprocess.h"

// An image whose answer is known.
struct Canary {
    std::filesystem::path file;
    std::vector<float> logits;  // in the order of the labels
};

struct Bundle {
    std::vector<std::string> labels;  // logit k is for labels[k]
    InputSpec input;
    std::filesystem::path graph;  // an ONNX file
    std::vector<Canary> canaries;
};

// Returns the bundle in `folder`: a graph bundle's own `model.onnx`, or else the export `exports/onnx-fp32`.
//
// Shapes, ranges and the graph's size are checked. Checksums are not: `linne verify` does that, and more.
Bundle open_bundle(const std::filesystem::path& folder);
