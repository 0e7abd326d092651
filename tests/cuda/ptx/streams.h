#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"

/// Work queues. Work runs only when something waits for it, so that a forgotten wait shows stale
/// data every time. Order between streams is kept as vector clocks.
namespace standin {

/// For each stream, by index, how many of its operations come before.
class Clock {
 public:
  void join(const Clock& other);
  void set(std::size_t stream, std::uint32_t count);
  std::uint32_t at(std::size_t stream) const {
    return stream < counts_.size() ? counts_[stream] : 0;
  }
  std::size_t size() const { return counts_.size(); }

 private:
  std::vector<std::uint32_t> counts_;
};

struct Operation {
  std::uint32_t id = 0, number = 0;  ///< number: position in its stream
  Clock clock;
  std::function<void(std::uint32_t id)> run;
};

struct Stream {
  std::size_t index = 0;
  bool blocking = true;  ///< ordered with the legacy default stream
  Clock clock;           ///< of what is enqueued so far
  std::uint32_t count = 0;
  std::deque<Operation> pending;
  bool asked = false;  ///< by a query, since the last work came
};

/// The legacy default stream.
Stream& default_stream();
/// Work that a stream operation needs: `what` names it in reports.
void enqueue(Stream& stream, const std::string& what, std::function<void(std::uint32_t id)> run);
/// Runs what `clock` covers, and orders what the host enqueues from now on after it.
void wait_for(const Clock& clock);
void wait_for_all();
std::unique_ptr<Stream> make_stream(bool blocking);
/// Runs what is left of the stream.
void retire(Stream& stream);

/// Notes that the running operation reads or writes a granule. Returns an operation that touched it
/// and is unordered with this one, or 0.
std::uint32_t touch_granule(DeviceMemory::Granule& granule, std::uint32_t operation, bool write);
std::string describe(std::uint32_t operation);

}  // namespace standin
