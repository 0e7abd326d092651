#pragma once

/// @file
/// Every operation on Vars.

/// @namespace mf::ops
/// The ops as structs (Differentiable), one behind each function on Vars. A struct states equation,
/// shapes, what it saves, its gradient and its errors. Its members follow from the concept (kName,
/// forward, backward, saved, and as fields what is no differentiable input or is saved), so the
/// reference does not list them; the headers in autograd/ops/ show them.

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/attention.h"
#include "autograd/ops/concat.h"
#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/dropout.h"
#include "autograd/ops/elementwise.h"
#include "autograd/ops/embedding.h"
#include "autograd/ops/feed_forward.h"
#include "autograd/ops/gather.h"
#include "autograd/ops/layer_norm.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/log_softmax.h"
#include "autograd/ops/logsumexp.h"
#include "autograd/ops/matmul.h"
#include "autograd/ops/max.h"
#include "autograd/ops/mean.h"
#include "autograd/ops/normalize.h"
#include "autograd/ops/softmax.h"
#include "autograd/ops/sum.h"
#include "autograd/ops/views.h"
#include "autograd/ops/where.h"
