/* The tables behind unicode.c and unicode_nfc.c, made by tests/oracle/text_unicode_tables.py. */
#ifndef PVL_TEXT_UNICODE_INTERNAL_H
#define PVL_TEXT_UNICODE_INTERNAL_H

#include <stdint.h>

enum {
    PVL_UNICODE_NOT_NFC = 8, /* with PVL_UNICODE_*: NFC_Quick_Check is No or Maybe */
    PVL_UNICODE_SHIFT = 7,
    PVL_DECOMPOSITIONS = 2061,
    PVL_COMPOSITIONS = 941
};

typedef struct pvl_unicode_record {
    uint8_t flags; /* PVL_UNICODE_* */
    uint8_t ccc;   /* canonical combining class */
} pvl_unicode_record;

/* Record of cp: records[blocks[index[cp >> SHIFT] << SHIFT | (cp & mask)]]. */
extern const uint8_t pvl_unicode_index[];
extern const uint8_t pvl_unicode_blocks[];
extern const pvl_unicode_record pvl_unicode_records[];

/* Canonical decompositions of one level, sorted by the code point; a second of 0 is none. */
extern const uint32_t pvl_decomposition_of[];
extern const uint32_t pvl_decomposition_first[];
extern const uint32_t pvl_decomposition_second[];
/* Those that also compose, as indices into the decompositions, sorted by (first, second). */
extern const uint16_t pvl_composition_order[];

static inline pvl_unicode_record pvl_unicode_record_of(uint32_t cp) {
    uint32_t block, mask = (1u << PVL_UNICODE_SHIFT) - 1;
    if (cp > 0x10FFFF)
        return (pvl_unicode_record){0, 0};
    block = pvl_unicode_index[cp >> PVL_UNICODE_SHIFT];
    return pvl_unicode_records[pvl_unicode_blocks[block << PVL_UNICODE_SHIFT | (cp & mask)]];
}

#endif
