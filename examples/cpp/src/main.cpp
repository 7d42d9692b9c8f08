// classify BUNDLE IMAGE...: the labels that `linne predict` gives, by ONNX Runtime or MIGraphX, without Python.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "bundle.h"
#include "decode.h"
#include "network.h"

namespace {

constexpr const char* usage =
    "usage: classify BUNDLE IMAGE... [--runtime onnxruntime|migraphx] [--target gpu|ref] [--threads N] [--top K]\n"
    "                                [--json]\n"
    "       classify BUNDLE IMAGE --dump FILE   (what the network would see: uint8, height x width x channels)\n";

// By which logits of canaries may be off, as a share of the largest of all: linne's own limit for fp32.
constexpr double canary_tolerance = 1e-3;

struct Arguments {
    std::string bundle, dump;
    std::vector<std::string> images;
    RuntimeChoice runtime;
    int top = 5;
    bool json = false;
};

class UsageError : public Error {
    using Error::Error;
};

int whole_number(const std::string& option, const std::string& text) {
    const bool digits = !text.empty() && text.size() < 10 &&
                        std::all_of(text.begin(), text.end(), [](unsigned char c) { return '0' <= c && c <= '9'; });
    if (!digits || std::stoi(text) < 1) throw UsageError(option + " is `" + text + "`, expected 1 or more");
    return std::stoi(text);
}

Arguments parse(const std::vector<std::string>& words) {
    Arguments given;
    std::vector<std::string> places;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string& word = words[i];
        const auto value = [&]() -> const std::string& {
            if (i + 1 == words.size()) throw UsageError(word + " needs a value");
            return words[++i];
        };
        if (word.rfind("--", 0) != 0)
            places.push_back(word);
        else if (word == "--runtime")
            given.runtime.name = value();
        else if (word == "--target")
            given.runtime.target = value();
        else if (word == "--threads")
            given.runtime.threads = whole_number(word, value());
        else if (word == "--top")
            given.top = whole_number(word, value());
        else if (word == "--dump")
            given.dump = value();
        else if (word == "--json")
            given.json = true;
        else
            throw UsageError("no option `" + word + "`");
    }
    if (places.size() < 2) throw UsageError("a bundle and an image are needed");
    if (!given.dump.empty() && places.size() > 2) throw UsageError("--dump takes one image");
    given.bundle = places[0];
    given.images.assign(places.begin() + 1, places.end());
    return given;
}

// Throws Error unless the network answers the canaries as it did when the bundle, or its export, was made.
void check_canaries(Network& network, const Bundle& bundle) {
    double largest = 0, worst = 0;
    for (const Canary& canary : bundle.canaries) {
        const Image image = to_input(read_file(canary.file, max_image_bytes), bundle.input);
        const std::vector<float> found = network.logits(normalised(image, bundle.input));
        if (found.size() != bundle.labels.size()) {
            throw Error("its graph gives " + std::to_string(found.size()) + " logits for " +
                        std::to_string(bundle.labels.size()) + " labels");
        }
        for (std::size_t k = 0; k < found.size(); ++k) {
            const double gap = std::fabs(double(found[k]) - canary.logits[k]);
            if (!(gap <= worst)) worst = gap;  // also for what is no number
            largest = std::max(largest, double(std::fabs(canary.logits[k])));
        }
    }
    if (!(worst <= canary_tolerance * largest))
        throw Error("it does not answer its canaries as it did when it was made");
}

std::vector<double> softmax(const std::vector<float>& logits) {
    const double largest = *std::max_element(logits.begin(), logits.end());
    std::vector<double> probabilities;
    for (float logit : logits) probabilities.push_back(std::exp(logit - largest));
    const double sum = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
    for (double& probability : probabilities) probability /= sum;
    return probabilities;
}

// Returns the places of the `count` largest probabilities, the largest first.
std::vector<std::size_t> first_of(const std::vector<double>& probabilities, int count) {
    std::vector<std::size_t> order(probabilities.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return probabilities[a] > probabilities[b]; });
    order.resize(std::min(order.size(), std::size_t(count)));
    return order;
}

// Prints the answer to one image, as `linne predict` does, or in one line of JSON as its `--format jsonl`.
void print(const std::string& file, const std::vector<float>& logits, const Bundle& bundle, const Arguments& given) {
    const std::vector<double> probabilities = softmax(logits);
    const std::vector<std::size_t> best = first_of(probabilities, given.top);
    if (given.json) {
        nlohmann::json rows = nlohmann::json::array();
        for (std::size_t k : best) {
            rows.push_back({{"label", bundle.labels[k]}, {"probability", probabilities[k]}, {"logit", logits[k]}});
        }
        const nlohmann::json answer{{"file", file}, {"predictions", rows}};
        // Names of files may be no UTF-8.
        std::cout << answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
        return;
    }
    std::cout << file << ":\n";
    for (std::size_t k : best) {
        char percent[16];
        std::snprintf(percent, sizeof percent, "%5.1f %%", 100 * probabilities[k]);
        std::cout << "  " << percent << "  " << bundle.labels[k] << std::endl;
    }
}

// Returns the image in `file` as the network sees it; errors name the file.
Image seen(const std::string& file, const Bundle& bundle) {
    try {
        return to_input(read_file(file, max_image_bytes), bundle.input);
    } catch (const Error& error) {
        throw Error("`" + file + "` cannot be read: " + error.what());
    }
}

// Returns the exit code: 1 where an image cannot be read; the others are answered all the same.
int run(const Arguments& given) {
    const Bundle bundle = open_bundle(given.bundle);
    if (!given.dump.empty()) {
        write_file(given.dump, seen(given.images[0], bundle).pixels);
        return 0;
    }
    std::unique_ptr<Network> network;
    try {
        network = open_network(given.runtime, bundle.graph, bundle.input);
        check_canaries(*network, bundle);
    } catch (const std::exception& error) {  // of the runtime too
        throw Error("bundle `" + given.bundle + "`: " + error.what());
    }
    int code = 0;
    for (const std::string& file : given.images) {
        try {
            const std::vector<float> logits = network->logits(normalised(seen(file, bundle), bundle.input));
            if (!std::all_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); })) {
                throw Error("`" + file + "`: the model's answer is not a number");
            }
            print(file, logits, bundle, given);
        } catch (const std::exception& error) {
            std::cerr << "error: " << error.what() << std::endl;
            code = 1;
        }
    }
    return code;
}

}  // namespace

int main(int count, char** words) {
    try {
        return run(parse({words + 1, words + count}));
    } catch (const UsageError& error) {
        std::cerr << "error: " << error.what() << "\n" << usage;
        return 2;
    } catch (const std::exception& error) {  // of the runtimes and the standard library too, such as no memory
        std::cerr << "error: " << error.what() << std::endl;
        return 1;
    }
}
