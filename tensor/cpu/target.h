#pragma once

/// The kernels are compiled once per instruction set, into a namespace of that name, by
/// portable.cpp, avx2.cpp and avx512.cpp; those set these two. A kernel's file on its own (as an
/// editor sees it) is the portable one.
#ifndef MEMFORMER_ISA
#define MEMFORMER_ISA portable
#define MEMFORMER_VECTOR_BYTES 16
#endif
