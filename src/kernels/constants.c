#include "kernels/constants.h"

const pvl_constants pvl_k_constants = {
    .low_halves = 0x0F0F0F0F,
    .low_bytes = {0x00FF00FF, 0x00FF00FF, 0x00FF00FF, 0x00FF00FF},
    .low_quarters = 0x000F000F,
    .ones = 0x00010001,
    .half_bits = 0x8FFFE000,
    .half_scale = 0x1p112f,
    .exp =
        {
            .round = 12582912.0f, /* 1.5 * 2^23: adding it rounds to an integer */
            .least = -87.3f,
            .most = 88.0f,
            .log2_e = 1.44269504f,
            .ln2_high = -0.693145751953125f, /* an integer times it is exact */
            .ln2_low = -1.42860677e-6f,
            .p = {0.008312049321830273f, 0.04189449921250343f, 0.16667133569717407f,
                  0.4999920129776001f},
            .one = 1.0f,
        },
    .gelu =
        {
            .edge = 5.6f,
            .p = {3.6112315360270486e-9f, -2.6689275500757503e-7f, 7.938218004710507e-6f,
                  -0.00011048030864913017f, -6.626000686082989e-5f, 0.07266856729984283f,
                  1.5957684516906738f},
        },
    .pack =
        {
            .magnitude = 0x7FFFFFFF,
            .least = -127.0f,
            .most = 127.0f,
            .beyond = 65536.0f,
            .exponent = 0x7F800000,
        },
};
