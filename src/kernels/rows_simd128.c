#include "kernels/sets.h"

#ifdef PVL_HAVE_SIMD128
#define NAME(op) pvl_k_##op##__simd128
#include "kernels/rows_simd.h"
#endif
