/* Unicode 15.0, as much of it as the tokenizers need: UTF-8, three character classes, NFC.
 *
 * Malformed UTF-8 is what the Unicode standard calls so (overlong forms, surrogates and values
 * above U+10FFFF included). The tables are made by tests/oracle/text_unicode_tables.py. */
#ifndef PVL_TEXT_UNICODE_H
#define PVL_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "text/buffer.h"

enum {
    PVL_UTF8_BAD = 0x110000, /* no code point: malformed */
    PVL_UTF8_SHORT =
        0x110001, /* no code point: the beginning of one, cut by the end of the bytes */
    PVL_REPLACEMENT = 0xFFFD
};

/* Classes, a set of bits. */
enum {
    PVL_UNICODE_LETTER = 1, /* general category L* */
    PVL_UNICODE_NUMBER = 2, /* N* */
    PVL_UNICODE_SPACE = 4   /* White_Space, a pattern's \s */
};

/* Reads one code point of the n >= 1 bytes at s and returns how many bytes it takes. For malformed
 * bytes *cp is PVL_UTF8_BAD or PVL_UTF8_SHORT and the result the length of the maximal bad subpart
 * (1 to 3): what Python replaces with one U+FFFD. */
size_t pvl_utf8_decode(uint32_t *cp, const void *s, size_t n);
/* Writes a code point, 1 to 4 bytes. cp <= 0x10FFFF. */
size_t pvl_utf8_encode(char out[4], uint32_t cp);
bool pvl_utf8_valid(const void *s, size_t n);

typedef enum pvl_utf8_replace {
    PVL_REPLACE_SUBPARTS = 0, /* one U+FFFD for each maximal bad subpart, as Python */
    PVL_REPLACE_BYTES = 1     /* one for each bad byte, as SentencePiece */
} pvl_utf8_replace;

/* Appends the bytes, malformed ones replaced. */
pvl_status pvl_utf8_sanitize(pvl_text *out, const void *s, size_t n, pvl_utf8_replace how,
                             pvl_error *err);

/* PVL_UNICODE_* of a code point; 0 beyond U+10FFFF. */
unsigned pvl_unicode_class(uint32_t cp);
/* What Python's str.strip() and str.isspace() take for white space: White_Space and U+001C..1F. */
bool pvl_unicode_is_python_space(uint32_t cp);
/* The text without Python's white space at its ends. Malformed bytes are not white space. */
pvl_span pvl_unicode_strip(pvl_span text);

/* Certainly in NFC already (a quick check: true is certain, false is perhaps). s is valid UTF-8. */
bool pvl_nfc_quick(const void *s, size_t n);
/* Appends the NFC of valid UTF-8 to *out. O(n), also for long runs of combining marks. */
pvl_status pvl_nfc(pvl_text *out, const void *s, size_t n, pvl_error *err);

#endif
