#include "kernels/sets.h"

#ifdef PVL_HAVE_RELAXED
#define PVL_SIMD_RELAXED
#define TILE_PAIRS
#define TILE_NAME(op) pvl_k_tile_##op##__relaxed
#define STREAMS_NAME(op) pvl_k_streams_##op##__relaxed
#include "kernels/gemm_simd.h"
#endif
