/* Bytes: little-endian reads through a bounds-checked cursor, and half-precision conversions. */
#ifndef PVL_BASE_BYTES_H
#define PVL_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A cursor over bytes that it does not own. A read past the end sets `bad`, returns zero and moves
 * no further, so a caller may check once after several reads. */
typedef struct pvl_cursor {
    const unsigned char *data;
    size_t size, at;
    bool bad;
} pvl_cursor;

static inline pvl_cursor pvl_cursor_over(const void *data, size_t size) {
    return (pvl_cursor){data, size, 0, false};
}
/* Pointer to the next n bytes, or NULL (and `bad`). */
const unsigned char *pvl_cursor_take(pvl_cursor *c, size_t n);
uint8_t pvl_cursor_u8(pvl_cursor *c);
uint16_t pvl_cursor_u16(pvl_cursor *c);
uint32_t pvl_cursor_u32(pvl_cursor *c);
uint64_t pvl_cursor_u64(pvl_cursor *c);
float pvl_cursor_f32(pvl_cursor *c);
double pvl_cursor_f64(pvl_cursor *c);

static inline uint16_t pvl_load_u16(const void *p) {
    const unsigned char *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}
static inline uint32_t pvl_load_u32(const void *p) {
    const unsigned char *b = p;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}
static inline uint64_t pvl_load_u64(const void *p) {
    const unsigned char *b = p;
    return (uint64_t)pvl_load_u32(b) | (uint64_t)pvl_load_u32(b + 4) << 32;
}
static inline float pvl_bits_f32(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint32_t pvl_f32_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* IEEE 754 binary16 -> binary32, exact, subnormals, infinities and NaN included. */
static inline float pvl_f16_to_f32(uint16_t h) {
    /* Without branches, so that loops of it become vector code. */
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, bits = (uint32_t)(h & 0x7FFFu) << 13;
    uint32_t normal = bits + (112u << 23);
    /* Zero and subnormal: frac 2^-24, exact, as the difference of two floats near 2^-14. */
    uint32_t small = pvl_f32_bits(pvl_bits_f32(bits + (113u << 23)) - 0x1p-14f);
    uint32_t beyond = bits >= 31u << 23 ? 112u << 23 : 0; /* infinity and NaN */
    return pvl_bits_f32(sign | (bits < 1u << 23 ? small : normal + beyond));
}
/* binary32 -> binary16, round to nearest even, overflow to infinity. */
uint16_t pvl_f32_to_f16(float f);
/* bfloat16 is the upper half of binary32. */
static inline float pvl_bf16_to_f32(uint16_t h) {
    return pvl_bits_f32((uint32_t)h << 16);
}
/* Round to nearest even; NaN stays NaN. */
uint16_t pvl_f32_to_bf16(float f);

#endif
