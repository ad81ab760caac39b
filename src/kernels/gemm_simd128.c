#include "kernels/sets.h"

#ifdef PVL_HAVE_SIMD128
#define TILE_PLAIN
#define TILE_NAME(op) pvl_k_tile_##op##__simd128
#define STREAMS_NAME(op) pvl_k_streams_##op##__simd128
#include "kernels/gemm_simd.h"
#endif
