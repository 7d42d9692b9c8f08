// MIGraphX by its C API: the graph is compiled for a GPU of AMD's, or for `ref`, its reference on any processor.

#include <migraphx/migraphx.h>

#include <type_traits>

#include "network.h"

namespace {

// Calls of the C API return 0, or the number of an error whose text they have written to stderr.
void check(migraphx_status status, const char* doing) {
    if (status != migraphx_status_success) {
        throw Error(std::string("MIGraphX cannot ") + doing + " (error " + std::to_string(int(status)) + ")");
    }
}

// What the C API creates, destroyed with its owner.
template <auto destroy>
struct Destroyer {
    template <typename Object>
    void operator()(Object* object) const {
        destroy(object);
    }
};
template <typename Handle, auto destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroyer<destroy>>;

using Program = Owned<migraphx_program_t, migraphx_program_destroy>;
using OnnxOptions = Owned<migraphx_onnx_options_t, migraphx_onnx_options_destroy>;
using CompileOptions = Owned<migraphx_compile_options_t, migraphx_compile_options_destroy>;
using Target = Owned<migraphx_target_t, migraphx_target_destroy>;
using ParameterShapes = Owned<migraphx_program_parameter_shapes_t, migraphx_program_parameter_shapes_destroy>;
using Parameters = Owned<migraphx_program_parameters_t, migraphx_program_parameters_destroy>;
using Argument = Owned<migraphx_argument_t, migraphx_argument_destroy>;
using Arguments = Owned<migraphx_arguments_t, migraphx_arguments_destroy>;

// Returns what `create(&handle, arguments...)` makes.
template <typename Object, typename Create, typename... Given>
Object created(const char* doing, Create create, Given... given) {
    typename Object::pointer handle = nullptr;
    check(create(&handle, given...), doing);
    return Object(handle);
}

Program compiled(const std::filesystem::path& graph, const std::string& target_name) {
    const auto options = created<OnnxOptions>("start", migraphx_onnx_options_create);
    check(migraphx_onnx_options_set_default_dim_value(options.get(), 1), "take one image at a time");
    auto program = created<Program>("read the graph", migraphx_parse_onnx, graph.c_str(), options.get());

    const auto target = created<Target>("find its target", migraphx_target_create, target_name.c_str());
    const auto how = created<CompileOptions>("start", migraphx_compile_options_create);
    check(migraphx_compile_options_set_offload_copy(how.get(), true), "copy to the target and back");
    check(migraphx_compile_options_set_fast_math(how.get(), false), "compute exactly");
    check(migraphx_program_compile(program.get(), target.get(), how.get()), "compile the graph for its target");
    return program;
}

class Migraphx : public Network {
  public:
    Migraphx(const std::string& target, const std::filesystem::path& graph, const InputSpec& input)
        : program_(compiled(graph, target)),
          shapes_(created<ParameterShapes>("list inputs", migraphx_program_get_parameter_shapes, program_.get())) {
        std::size_t count = 0;
        check(migraphx_program_parameter_shapes_size(&count, shapes_.get()), "count inputs");
        if (count != 1) throw Error("its graph has not one input");
        // Names are the exporter's choice, so the program is asked.
        const char* name = nullptr;
        check(migraphx_program_parameter_shapes_names(&name, shapes_.get()), "name its input");
        input_name_ = name;
        check(migraphx_program_parameter_shapes_get(&shape_, shapes_.get(), name), "describe its input");
        const std::size_t* sides = nullptr;
        std::size_t num_sides = 0;
        check(migraphx_shape_lengths(&sides, &num_sides, shape_), "describe its input");
        const std::vector<std::int64_t> lengths(sides, sides + num_sides);
        check_input_shape(lengths, input);
        batch_ = std::size_t(lengths[0]);
    }

    std::vector<float> logits(std::vector<float> image) override {
        image.resize(image.size() * batch_);  // a graph for more images at once is given black ones besides
        std::size_t expected = 0;
        check(migraphx_shape_bytes(&expected, shape_), "describe its input");
        if (expected != image.size() * sizeof(float)) throw Error("its graph takes other numbers than float32");
        const auto parameters = created<Parameters>("take an input", migraphx_program_parameters_create);
        const auto argument =
            created<Argument>("take an input", migraphx_argument_create, shape_, static_cast<void*>(image.data()));
        check(migraphx_program_parameters_add(parameters.get(), input_name_.c_str(), argument.get()), "take an input");
        const auto outputs =
            created<Arguments>("run the graph", migraphx_program_run, program_.get(), parameters.get());
        return first_row(outputs.get());
    }

  private:
    // Returns a copy of the first image's row of the first output.
    std::vector<float> first_row(migraphx_arguments_t outputs) const {
        const_migraphx_argument_t output = nullptr;
        const_migraphx_shape_t shape = nullptr;
        check(migraphx_arguments_get(&output, outputs, 0), "give its output");
        check(migraphx_argument_shape(&shape, output), "describe its output");
        migraphx_shape_datatype_t type{};
        check(migraphx_shape_type(&type, shape), "describe its output");
        const std::size_t *lengths = nullptr, *strides = nullptr;
        std::size_t num_lengths = 0, num_strides = 0;
        check(migraphx_shape_lengths(&lengths, &num_lengths, shape), "describe its output");
        check(migraphx_shape_strides(&strides, &num_strides, shape), "describe its output");
        if (num_lengths != 2 || type != migraphx_shape_float_type) throw Error("its graph gives no rows of float32");
        char* buffer = nullptr;
        check(migraphx_argument_buffer(&buffer, output), "give its output");
        const float* numbers = reinterpret_cast<const float*>(buffer);
        std::vector<float> row;
        for (std::size_t k = 0; k < lengths[1]; ++k) row.push_back(numbers[k * strides[1]]);
        return row;
    }

    Program program_;
    ParameterShapes shapes_;
    const_migraphx_shape_t shape_ = nullptr;  // belongs to `shapes_`
    std::string input_name_;
    std::size_t batch_ = 1;
};

}  // namespace

std::unique_ptr<Network> open_migraphx(const RuntimeChoice& choice, const std::filesystem::path& graph,
                                       const InputSpec& input) {
    return std::make_unique<Migraphx>(choice.target, graph, input);
}
