#include "kernels/sets.h"

#ifdef PVL_HAVE_RELAXED
#define PVL_SIMD_RELAXED
#define NAME(op) pvl_k_##op##__relaxed
#include "kernels/attn_simd.h"
#endif
