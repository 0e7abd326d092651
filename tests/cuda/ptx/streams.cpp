#include "streams.h"

#include <algorithm>
#include <utility>

#include "standin.h"

namespace standin {

void Clock::join(const Clock& other) {
  if (counts_.size() < other.counts_.size()) counts_.resize(other.counts_.size(), 0);
  for (std::size_t s = 0; s < other.counts_.size(); ++s) {
    counts_[s] = std::max(counts_[s], other.counts_[s]);
  }
}

void Clock::set(std::size_t stream, std::uint32_t count) {
  if (counts_.size() <= stream) counts_.resize(stream + 1, 0);
  counts_[stream] = count;
}

namespace {

struct Record {
  std::size_t stream;
  std::uint32_t number;
  std::string what;
};

struct Scheduler {
  Stream legacy;
  std::vector<Stream*> streams{&legacy};  // by index; nullptr once destroyed
  std::vector<Record> operations{{0, 0, "nothing"}};
  Clock host;                      // what the host has waited for
  const Clock* running = nullptr;  // clock of the operation that runs now
};

Scheduler& scheduler() {
  static Scheduler* s = new Scheduler;  // used by whatever runs at exit
  return *s;
}

void run_through(const Clock& clock);

void run_stream(Stream& stream, std::uint32_t number) {
  while (!stream.pending.empty() && stream.pending.front().number <= number) {
    Operation operation = std::move(stream.pending.front());
    stream.pending.pop_front();
    run_through(operation.clock);
    const Clock* outer = std::exchange(scheduler().running, &operation.clock);
    operation.run(operation.id);
    scheduler().running = outer;
  }
}

void run_through(const Clock& clock) {
  for (std::size_t s = 0; s < clock.size(); ++s) {
    if (Stream* stream = scheduler().streams[s]) run_stream(*stream, clock.at(s));
  }
}

}  // namespace

Stream& default_stream() { return scheduler().legacy; }

void enqueue(Stream& stream, const std::string& what, std::function<void(std::uint32_t id)> run) {
  Scheduler& s = scheduler();
  stream.clock.join(s.host);
  if (&stream == &s.legacy) {
    for (const Stream* other : s.streams) {
      if (other != nullptr && other->blocking) stream.clock.join(other->clock);
    }
  } else if (stream.blocking) {
    stream.clock.join(s.legacy.clock);
  }
  stream.clock.set(stream.index, ++stream.count);
  stream.asked = false;
  const auto id = static_cast<std::uint32_t>(s.operations.size());
  s.operations.push_back({stream.index, stream.count, what});
  stream.pending.push_back({id, stream.count, stream.clock, std::move(run)});
  if (!settings().lazy) run_stream(stream, stream.count);
}

void wait_for(const Clock& clock) {
  run_through(clock);
  scheduler().host.join(clock);
}

void wait_for_all() {
  for (std::size_t s = 0; s < scheduler().streams.size(); ++s) {
    if (Stream* stream = scheduler().streams[s]) wait_for(stream->clock);
  }
}

std::unique_ptr<Stream> make_stream(bool blocking) {
  auto stream = std::make_unique<Stream>();
  stream->index = scheduler().streams.size();
  stream->blocking = blocking;
  scheduler().streams.push_back(stream.get());
  return stream;
}

void retire(Stream& stream) {
  run_through(stream.clock);
  scheduler().streams[stream.index] = nullptr;
}

std::uint32_t touch_granule(DeviceMemory::Granule& granule, std::uint32_t operation, bool write) {
  const auto unordered = [&](std::uint32_t earlier) {
    if (earlier == 0 || earlier == operation || scheduler().running == nullptr) return false;
    const Record& r = scheduler().operations[earlier];
    return scheduler().running->at(r.stream) < r.number;
  };
  std::uint32_t other = 0;
  if (unordered(granule.writer)) other = granule.writer;
  if (write) {
    if (unordered(granule.reader)) other = granule.reader;
    if (unordered(granule.reader_before)) other = granule.reader_before;
    granule.writer = operation;
  } else if (granule.reader != operation) {
    granule.reader_before = std::exchange(granule.reader, operation);
  }
  return other;
}

std::string describe(std::uint32_t operation) {
  const Record& r = scheduler().operations[operation];
  return r.what + " on stream " + std::to_string(r.stream);
}

}  // namespace standin
