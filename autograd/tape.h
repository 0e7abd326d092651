#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "autograd/parameter.h"
#include "autograd/var.h"
#include "tensor/small_blocks.h"

namespace mf {

class Grads;
class Saved;

/// A gradient to start a sweep from: d(loss)/d(var).
struct Seed {
  Var var;          ///< any Var of the tape, not only its last
  Tensor gradient;  ///< shape, dtype and device of the var
};

/// One line per entry of a tape, oldest first, and one per leaf. Contributions are gradients that
/// arrived, each counted as it was added: a seed, or what an entry gave to one of its inputs.
struct TapeReport {
  /// An entry: one recorded op.
  struct Row {
    std::string op;      ///< its kName
    std::string module;  ///< path of the layer that recorded it, "encoder/layers.0/..."
    std::vector<std::int32_t> inputs;  ///< ids; -1 for constants
    std::int32_t output = -1;          ///< id of the first output
    std::vector<Shape> shapes;         ///< of the outputs
    std::int64_t saved_bytes = 0;  ///< of blocks that no earlier entry saved; parameters excluded
    std::int32_t visit = -1;       ///< place in the order of the sweep; -1: not visited
    std::vector<std::int32_t> given;     ///< contributions to each input
    std::vector<std::int32_t> received;  ///< contributions to each output
  };
  /// An input or a parameter.
  struct Leaf {
    std::string name;           ///< of the parameter, or "input"
    std::int32_t id = -1;       ///< as in `Row::inputs`
    bool parameter = false;     ///< else made by `input`
    Shape shape;                ///< of the value
    std::int32_t received = 0;  ///< contributions
    /// Euclidean norm of the gradient so far, with what earlier sweeps left in a parameter's. Empty
    /// where there is none yet, which is not a gradient of 0.
    std::optional<double> gradient_norm;
  };
  std::vector<Row> rows;         ///< oldest first
  std::vector<Leaf> leaves;      ///< inputs and parameters
  std::int64_t saved_bytes = 0;  ///< of all rows
};
/// A table for people.
std::string describe(const TapeReport& report);
/// "none yet", "0" or the norm of a leaf's gradient.
std::string describe_gradient(const std::optional<double>& norm);

namespace detail {

/// An op as the tape owns it: the only virtual layer (see op.h).
struct Node {
  virtual ~Node() = default;
  // Made and freed once per recorded op.
  static void* operator new(std::size_t bytes) { return allocate_small(bytes); }
  static void operator delete(void* data, std::size_t bytes) { free_small(data, bytes); }
  virtual const char* name() const = 0;
  /// `gy[i]` is undefined where output i got no gradient.
  virtual void backward(std::span<const Tensor> gy, Grads& grads) = 0;
  virtual std::vector<const Saved*> saved() const = 0;
};

}  // namespace detail

/// The record of one forward pass. Entries are in order of recording, which is a topological order,
/// so the reverse sweep is a plain loop. Many tapes may live at once; operands carry theirs.
///
/// - An operation is recorded only if some operand is on a tape. Operands on two tapes: an error.
/// - The sweep frees each entry's saved tensors as it passes. A swept tape neither sweeps nor
///   records again: make a new Tape, or `clear()` it.
/// - Parameter gradients are written through: each contribution is added straight to
///   `Parameter::grad`, newest entry first.
/// - The tape does not own values: a result that no op saved and no Var holds is freed at once.
class Tape {
 public:
  /// An empty tape that records.
  Tape() = default;
  /// A tape that records nothing: what is computed with its Vars are constants.
  static Tape off() { return Tape(Off{}); }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// False for `off()`.
  bool records() const { return records_; }

  /// A leaf whose gradient you will ask for; f32 or f64. `name` is for messages.
  Var input(Tensor value, std::string_view name = "input");
  /// The leaf of a parameter: one id per tape, however often it is used.
  Var param(const Parameter& parameter);

  /// One reverse sweep with any number of seeds. Contributions meet in the order of the tape.
  /// Throws Error if a seed is not on this tape or has another shape or dtype, or on a second
  /// sweep.
  void backward(std::span<const Seed> seeds);
  /// The same: `tape.backward({{y, gy}, {z, gz}})`.
  void backward(std::initializer_list<Seed> seeds) {
    backward(std::span<const Seed>(seeds.begin(), seeds.size()));
  }
  /// Seed 1 for a tensor of one element. Throws Error if it has more.
  void backward(const Var& loss);

  /// Gradient of a leaf made by `input`, after the sweep; zeros if the sweep did not reach it.
  Tensor grad(const Var& leaf) const;
  /// False if no gradient reached the leaf: "no gradient" is not the same as a gradient of zero.
  bool reached(const Var& leaf) const;

  /// Forgets everything but its capacity; the tape can be recorded on again.
  void clear();

  /// Number of entries.
  std::int64_t size() const { return static_cast<std::int64_t>(entries_.size()); }
  /// Bytes of blocks that entries hold for backward, each block once, parameters excluded.
  std::int64_t saved_bytes() const;
  /// What stands on the tape, before and after the sweep.
  TapeReport report() const;

  /// Anomaly mode: every value and gradient is checked as it is made; the first NaN or infinity is
  /// an Error that names the op, its module, shapes, and the ranges of values. Replays inside check
  /// too.
  void check_finite(bool on) { check_finite_ = on; }
  /// Whether anomaly mode is on.
  bool checks_finite() const { return check_finite_; }

  // For op.h, pass.h and replay.cpp -------------------------------------------------------------

  /// Records `node` with these inputs; returns the Vars of its outputs. Throws Error on a swept
  /// tape.
  std::vector<Var> append(std::unique_ptr<detail::Node> node, std::span<const Var* const> inputs,
                          std::span<const Tensor> outputs);
  /// The same for one output.
  Var append(std::unique_ptr<detail::Node> node, std::span<const Var* const> inputs,
             Tensor&& output);
  /// What is recorded next belongs to the layer of this path; returns what to give to
  /// `leave_module`.
  std::int32_t enter_module(const std::string& path);
  /// Back to the layer that `enter_module` returned.
  void leave_module(std::int32_t former) { module_ = former; }
  /// Path of the layer that records now; holds until the next `enter_module`.
  std::string_view module() const { return modules_[static_cast<std::size_t>(module_)]; }

 private:
  friend class Grads;
  struct Off {};
  explicit Tape(Off) : records_(false) {}

  struct Entry {
    std::unique_ptr<detail::Node> node;  // null after the sweep
    std::int32_t first_input;            // in inputs_
    std::int32_t inputs;
    std::int32_t first_output;
    std::int32_t outputs;
    std::int32_t module;
  };
  /// What the sweep leaves of an entry.
  struct Visit {
    const char* name = nullptr;
    std::int32_t order = -1;
  };
  /// What a gradient is checked against, and where it goes.
  struct Place {
    Place(const Tensor& value, bool is_leaf)
        : shape(value.shape()), dtype(value.dtype()), leaf(is_leaf), device(value.device()) {}

    Shape shape;
    DType dtype;
    bool leaf;
    Device device;
    Parameter parameter;  // defined: write through
  };

  std::int32_t add_place(const Tensor& value, bool leaf);
  /// Adds the entry, without places for its outputs.
  void add_entry(std::unique_ptr<detail::Node> node, std::span<const Var* const> inputs,
                 std::size_t outputs);
  /// Anomaly mode: Error if a value is not finite.
  void check_output(const detail::Node& node, std::span<const Var* const> inputs,
                    const Tensor& output) const;
  std::span<const std::int32_t> inputs_of(const Entry& entry) const {
    return {inputs_.data() + entry.first_input, static_cast<std::size_t>(entry.inputs)};
  }
  /// Adds a contribution to the gradient of `id`, after un-broadcasting it to the place's shape.
  void deposit(std::int32_t id, Tensor&& gradient, const char* from);
  /// The gradient of `id` if it may be added to in place, else null. Null in anomaly mode, which
  /// looks at each contribution.
  Tensor* accumulator(std::int32_t id);
  /// The gradient of `id` so far: a parameter's own, or the tape's.
  const Tensor& gradient_at(std::int32_t id) const;
  /// Contributions to a place; none before the sweep.
  std::int32_t received_at(std::int32_t id) const {
    const auto i = static_cast<std::size_t>(id);
    return i < received_.size() ? received_[i] : 0;
  }
  /// The blocks of parameters: what of them is saved costs nothing.
  std::unordered_set<const void*> parameter_blocks() const;
  /// Bytes that an entry saved of blocks not yet in `counted`.
  std::int64_t saved_bytes(const Entry& entry, std::unordered_set<const void*>& counted) const;
  void require_recording(const char* operation) const;
  /// "softmax in encoder/layers.0".
  std::string where(const detail::Node& node, std::int32_t module) const;

  std::vector<Entry> entries_;
  std::vector<std::int32_t> inputs_;    // of all entries, one after the other; -1 for constants
  std::vector<std::int32_t> given_;     // contributions to each of inputs_, filled by the sweep
  std::vector<std::int32_t> received_;  // contributions to each place, filled by the sweep
  std::vector<Visit> visited_;          // of each entry, filled by the sweep
  std::vector<Place> places_;
  std::vector<Tensor> gradients_;  // by id, filled during and after the sweep
  std::vector<std::pair<std::int32_t, std::string>> input_names_;  // of leaves made by input
  std::unordered_map<const void*, std::int32_t> parameter_ids_;
  std::vector<std::string> modules_{""};
  std::int32_t module_ = 0;
  bool records_ = true;
  bool swept_ = false;
  bool check_finite_ = false;
};

/// Where an op's backward puts the gradients of its inputs.
class Grads {
 public:
  /// Number of inputs.
  int inputs() const { return static_cast<int>(inputs_.size()); }
  /// False for constants: the work can be skipped.
  bool wants(int input) const { return inputs_[static_cast<std::size_t>(input)] >= 0; }
  /// The gradient so far, where a contribution may be added to it in place (a product that
  /// accumulates, say); null where there is none yet: then `add` the contribution.
  Tensor* sum(int input) {
    const auto i = static_cast<std::size_t>(input);
    Tensor* const slot = wants(input) ? tape_.accumulator(inputs_[i]) : nullptr;
    if (slot != nullptr) ++given_[i];
    return slot;
  }
  /// Adds a contribution. A gradient with broadcast axes is summed down to the input's shape here.
  void add(int input, Tensor gradient) {
    if (!wants(input)) return;
    const auto i = static_cast<std::size_t>(input);
    tape_.deposit(inputs_[i], std::move(gradient), from_);
    ++given_[i];
  }

 private:
  friend class Tape;
  Grads(Tape& tape, std::span<const std::int32_t> inputs, std::int32_t* given, const char* from)
      : tape_(tape), inputs_(inputs), given_(given), from_(from) {}
  Tape& tape_;
  std::span<const std::int32_t> inputs_;
  std::int32_t* given_;  // contributions to each of them
  const char* from_;
};

}  // namespace mf
