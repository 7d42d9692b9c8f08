// ONNX Runtime by its C++ API, on the CPU.

#include <onnxruntime_cxx_api.h>

#include <thread>

#include "network.h"

namespace {

class OnnxRuntime : public Network {
  public:
    OnnxRuntime(const RuntimeChoice& choice, const std::filesystem::path& graph, const InputSpec& input)
        : environment_(ORT_LOGGING_LEVEL_ERROR, "classify"), session_(environment_, graph.c_str(), options(choice)) {
        if (session_.GetInputCount() != 1 || session_.GetOutputCount() != 1) {
            throw Error("its graph has not one input and one output");
        }
        Ort::AllocatorWithDefaultOptions allocator;
        input_name_ = session_.GetInputNameAllocated(0, allocator).get();
        output_name_ = session_.GetOutputNameAllocated(0, allocator).get();
        shape_ = session_.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
        check_input_shape(shape_, input);
        if (shape_[0] < 1) shape_[0] = 1;  // open
    }

    std::vector<float> logits(std::vector<float> image) override {
        const std::size_t batch = std::size_t(shape_[0]);
        image.resize(image.size() * batch);  // a graph for more images at once is given black ones besides
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
        const auto tensor =
            Ort::Value::CreateTensor<float>(memory, image.data(), image.size(), shape_.data(), shape_.size());
        const char *input = input_name_.c_str(), *output = output_name_.c_str();
        const std::vector<Ort::Value> outputs = session_.Run(Ort::RunOptions{nullptr}, &input, &tensor, 1, &output, 1);
        const std::size_t count = outputs[0].GetTensorTypeAndShapeInfo().GetElementCount() / batch;
        const float* first = outputs[0].GetTensorData<float>();
        return {first, first + count};
    }

  private:
    static Ort::SessionOptions options(const RuntimeChoice& choice) {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(choice.threads > 0 ? choice.threads : int(std::thread::hardware_concurrency()));
        options.SetInterOpNumThreads(1);
        options.SetDeterministicCompute(true);
        return options;
    }

    Ort::Env environment_;
    Ort::Session session_;
    std::string input_name_, output_name_;
    std::vector<std::int64_t> shape_;
};

}  // namespace

std::unique_ptr<Network> open_onnxruntime(const RuntimeChoice& choice, const std::filesystem::path& graph,
                                          const InputSpec& input) {
    return std::make_unique<OnnxRuntime>(choice, graph, input);
}
