#include "base/bytes.h"

const unsigned char *pvl_cursor_take(pvl_cursor *c, size_t n) {
    if (c->bad || n > c->size - c->at) {
        c->bad = true;
        return NULL;
    }
    const unsigned char *p = c->data + c->at;
    c->at += n;
    return p;
}

uint8_t pvl_cursor_u8(pvl_cursor *c) {
    const unsigned char *p = pvl_cursor_take(c, 1);
    return p ? p[0] : 0;
}

uint16_t pvl_cursor_u16(pvl_cursor *c) {
    const unsigned char *p = pvl_cursor_take(c, 2);
    return p ? pvl_load_u16(p) : 0;
}

uint32_t pvl_cursor_u32(pvl_cursor *c) {
    const unsigned char *p = pvl_cursor_take(c, 4);
    return p ? pvl_load_u32(p) : 0;
}

uint64_t pvl_cursor_u64(pvl_cursor *c) {
    const unsigned char *p = pvl_cursor_take(c, 8);
    return p ? pvl_load_u64(p) : 0;
}

float pvl_cursor_f32(pvl_cursor *c) {
    return pvl_bits_f32(pvl_cursor_u32(c));
}

double pvl_cursor_f64(pvl_cursor *c) {
    uint64_t bits = pvl_cursor_u64(c);
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

uint16_t pvl_f32_to_f16(float f) {
    uint32_t x = pvl_f32_bits(f);
    uint32_t sign = (x >> 16) & 0x8000u, mag = x & 0x7FFFFFFFu;
    if (mag > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u | (mag >> 13 & 0x1FFu));
    if (mag >= 0x477FF000u)
        return (uint16_t)(sign | 0x7C00u); /* rounds to 65536 or more */
    if (mag >= 0x38800000u) {              /* normal half */
        uint32_t odd = mag >> 13 & 1u;
        return (uint16_t)(sign | ((mag - 0x38000000u + 0xFFFu + odd) >> 13));
    }
    if (mag < 0x33000000u)
        return (uint16_t)sign;           /* below half of the smallest subnormal */
    uint32_t shift = 126u - (mag >> 23); /* 14..24: value = frac * 2^-24 */
    uint32_t frac = (mag & 0x7FFFFFu) | 0x800000u;
    uint32_t half = frac >> shift, rest = frac & ((1u << shift) - 1u), tie = 1u << (shift - 1);
    if (rest > tie || (rest == tie && (half & 1u)))
        half++;
    return (uint16_t)(sign | half);
}

uint16_t pvl_f32_to_bf16(float f) {
    uint32_t x = pvl_f32_bits(f);
    if ((x & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(x >> 16 | 0x40u);
    return (uint16_t)((x + 0x7FFFu + (x >> 16 & 1u)) >> 16);
}
