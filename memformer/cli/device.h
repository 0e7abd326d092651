#pragma once

#include <CLI/CLI.hpp>

#include "tensor/device.h"

namespace mf::cli {

/// Adds --device and --tf32 to a command. By the time it runs, `device` is chosen and its backend
/// installed; a device that is not there is an Error.
void add_device(CLI::App& command, Device& device);

/// Gives back what the chosen device still holds; to be called when no tensor is left.
void release_device();

}  // namespace mf::cli
