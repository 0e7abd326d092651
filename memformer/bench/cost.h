#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "memformer/audit/report.h"
#include "memformer/train/config.h"

namespace mf::bench {

/// The sizes that all models have in common, and what each of them remembers with.
struct CostShape {
  std::int64_t width = 512;          ///< d
  std::int64_t heads = 8;            ///< of every attention
  std::int64_t feed_forward = 2048;  ///< hidden features
  std::int64_t encoder_layers = 4;   ///< Memformer
  std::int64_t decoder_layers = 8;   ///< Memformer
  /// Of each baseline; 0: as many as bring its parameters closest to the Memformer's.
  std::int64_t layers = 0;
  std::int64_t vocabulary = 257;    ///< V
  std::int64_t segment = 64;        ///< L; the transformer's is the whole text
  std::int64_t slots = 32;          ///< Memformer
  std::int64_t cache = 64;          ///< rows a layer; Transformer-XL and Compressive Transformer
  std::int64_t compressed = 64;     ///< rows a layer; Compressive Transformer
  std::int64_t memory_tokens = 16;  ///< Recurrent Memory Transformer
};

/// Whether a model of this name has a memory whose size can be chosen.
bool has_memory_size(const std::string& model);
/// The configuration of the model of this name. Throws Error on an unknown name.
RunConfig config_of(const CostShape& shape, const std::string& model);
/// The shape with `rows` of memory for this model: slots, rows of cache, memory tokens, or rows of
/// which half are cached and half compressed.
CostShape with_memory(CostShape shape, const std::string& model, std::int64_t rows);
/// Elements of all parameters. Makes the model.
std::int64_t parameters_of(const RunConfig& config);
/// `shape.layers`, or the number that stands for 0. Makes models.
std::int64_t layers_of(const CostShape& shape, const std::string& model);

/// What is done with a text: read it, or train on it as one window.
enum class CostMethod {
  inference,     ///< step after step in evaluation mode, without a tape; the state is carried
  bptt,          ///< one training step: clear gradients, bptt(), Adam
  checkpointed,  ///< the same with checkpointed_bptt()
  mrbp           ///< the same with mrbp()
};
/// "inference" and so on.
const char* name_of(CostMethod method);

/// One measurement.
struct CostJob {
  RunConfig model;                            ///< with the segment that the text is cut by
  CostMethod method = CostMethod::inference;  ///< what is done
  std::int64_t tokens = 0;                    ///< of each row's text
  std::int64_t scored = 0;                    ///< at its end, those that are predicted
  std::int64_t batch = 1;                     ///< rows
  std::int64_t repeats = 3;                   ///< timed runs
  std::uint64_t seed = 0;                     ///< of weights and tokens
};

/// What it came to.
struct Cost {
  std::int64_t multiply_adds = 0;  ///< of one run, counted
  /// Largest active bytes above what stands before: weights, tokens and, in training, moments.
  std::int64_t active_bytes = 0;
  std::int64_t peak_bytes = 0;                ///< the same with what stands before
  std::optional<std::int64_t> process_bytes;  ///< largest resident size; nothing off Linux
  std::int64_t state_bytes = 0;               ///< carried at the end
  double seconds = 0.0;                       ///< of one run: the median
  std::int64_t scored = 0;                    ///< tokens of all rows that were predicted
};
/// A text of random tokens as the model's steps; the same tokens in every form. A next-segment
/// model reads all segments but the last, a next-token model all of them. Throws Error unless the
/// text is whole segments, two for a next-segment model, and a part of it is scored.
std::vector<Segment> cost_window(const CostJob& job);
/// Here and now: makes the model, runs the job once for the counts and bytes, and until there are
/// `repeats` times. The first run is one of them if it reads and took a second or more: a first
/// training step also takes the memory that later ones find.
Cost measure(const CostJob& job);

/// What grows from point to point.
enum class CostAxis { length, memory };

/// What `bench cost` is asked for.
struct CostOptions {
  CostShape shape;                                 ///< of all models
  CostAxis axis = CostAxis::length;                ///< what is doubled from point to point
  std::int64_t from = 0;                           ///< first x; 0: 128 tokens or 32 rows
  std::int64_t to = 0;                             ///< last x; 0: 65536 tokens or 2048 rows
  std::int64_t length = 4096;                      ///< tokens of the text where memory grows
  std::vector<std::string> models{model_names()};  ///< those that are measured
  std::int64_t batch = 0;                          ///< rows; 0: 1, and 4 in the table of methods
  bool training = false;                           ///< one window by mrbp and bptt, not inference
  std::int64_t repeats = 3;                        ///< of a point's run
  double limit_seconds = 120.0;                    ///< no run is begun that may take longer
  std::int64_t limit_bytes = std::int64_t{16} << 30;  ///< nor one that may need more
  std::int64_t at_length = 8192;                      ///< x of the ratios
  std::uint64_t seed = 0;                             ///< of weights and tokens
  std::string command;                                ///< how the program was called
  /// A process of its own for each measurement, so that its resident size is its own; see in_child.
  bool own_processes = false;
  /// Is told of each point.
  std::function<void(const std::string&)> progress{};
};

/// What is measured at each point: inference, or a training step by mrbp and by bptt.
std::vector<CostMethod> methods_of(const CostOptions& options);

/// One model at one point.
struct CostRow {
  std::string model;
  CostMethod method = CostMethod::inference;
  std::int64_t x = 0;         ///< tokens, rows of memory or, in the table of methods, segments
  Cost cost;                  ///< empty where nothing was run
  std::int64_t expected = 0;  ///< multiply-adds by the closed form, behind full memories; 0: none
  std::string not_run;        ///< why not; "": it was run

  /// Scored tokens of all rows / seconds.
  double tokens_per_second() const;
};

/// A measure of one row over that of another: how many times as much `of` takes as `over`.
struct CostRatio {
  /// "multiply_adds", "active_bytes", "state_bytes", "process_bytes" or "seconds".
  std::string measure;
  std::string of, over;  ///< models, or methods of the table
  std::int64_t x = 0;    ///< where
  double ratio = 0.0;
};

/// What became of a model's configuration.
struct CostModel {
  std::string name;
  std::int64_t layers = 0, parameters = 0;
};

/// All that `bench cost` found.
struct CostReport {
  CostOptions options;
  bool methods = false;  ///< the table of methods: x is the horizon
  int threads = 1;
  std::string isa;                ///< instruction set of the kernels
  std::vector<CostModel> models;  ///< at the common shape
  std::vector<CostRow> rows;      ///< in the order in which they were measured
  std::vector<CostRatio> ratios;

  /// Whether something was run, inference counts the multiply-adds of the closed forms (at most
  /// those where a cache fills first), a Memformer's state has the same size behind every text, and
  /// in the table of methods mrbp's peak is below bptt's.
  bool holds() const;
};

/// Each model at each point: x is doubled from `from` to `to`, and at each x all models are
/// measured, one after the other. A point is not run if, going by the two before it, it may take
/// more than a limit: what grew r-fold from the one to the other is taken to grow max(r, 2)-fold
/// again, behind a first point 4-fold. Throws Error on impossible options.
CostReport bench_cost(const CostOptions& options);
/// The paper's setting for MRBP: of `options` the shape of the Memformer, batch, repeats, seed. One
/// training step, horizons of 4 and 16 segments, by bptt, checkpointed_bptt and mrbp,
/// in turn, `repeats` times; medians, and medians of the ratios within a turn.
CostReport bench_cost_methods(const CostOptions& options);
/// One JSON object.
std::string to_json(const CostReport& report);
/// Tables, and on a page curves, with the claim that `holds` stands for.
Report report_of(const CostReport& report);

}  // namespace mf::bench
