#pragma once

#include "memformer/model/config.h"
#include "nn/init.h"

namespace mf {

/// The slots at rest and between steps: forgetting vectors v, one per slot, shared by the batch.
///   Biased Memory Normalization (eq. F1, F2):
///     u_i = m'_i + v_i,   m_{t+1,i} = radius * u_i / sqrt(|u_i|^2 + eps^2)
///   initial memory (eq. F3): m_{0,i} = radius * v_i / sqrt(|v_i|^2 + eps^2)
/// so that a slot never refreshed turns toward where it began (eq. F4). v gets gradient from every
/// step and, where a document starts inside the window, from the initial memory.
struct Memory {
  Parameter forgetting;              ///< v: [slots, width]
  MemoryNorm norm = MemoryNorm::l2;  ///< how slots are brought back to scale
  double radius = 1.0;               ///< length of a slot, of l2
  double epsilon = 1e-6;             ///< eps, of l2
  double norm_epsilon = 1e-5;        ///< of layer_norm
  bool adds_forgetting = true;       ///< false: u = m', and v only gives the initial memory

  /// Without vectors; to be assigned to.
  Memory() = default;
  /// v is normal, of expected length `forgetting_initial_norm` each.
  Memory(const ModelConfig& config, RngKey key);

  /// M_0: [batch, slots, width].
  Var initial(const Pass& pass, std::int64_t batch) const;
  /// M_{t+1} from the written slots m' [batch, slots, width].
  Var advance(const Pass& pass, const Var& written) const;
  /// M with the rows that start a document replaced by M_0 (eq. F5); `reset` u8 [batch] or
  /// undefined.
  Var start(const Pass& pass, const Var& memory, const Tensor& reset) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("forgetting", forgetting);
  }

 private:
  Var normalise(const Var& x) const;
};

}  // namespace mf
