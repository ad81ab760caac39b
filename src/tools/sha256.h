/* SHA-256 (FIPS 180-4), for the chunks of a manifest. */
#ifndef PVL_TOOLS_SHA256_H
#define PVL_TOOLS_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct pvl_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    unsigned char block[64];
} pvl_sha256;

void pvl_sha256_init(pvl_sha256 *s);
void pvl_sha256_add(pvl_sha256 *s, const void *data, size_t n);
/* The digest; s must be initialised again before it is used again. */
void pvl_sha256_end(pvl_sha256 *s, unsigned char out[32]);
/* 64 lower-case digits and a closing 0. */
void pvl_sha256_hex(char out[65], const unsigned char digest[32]);

#endif
