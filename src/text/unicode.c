#include "text/unicode.h"

#include <string.h>

#include "text/unicode_internal.h"

size_t pvl_utf8_decode(uint32_t *cp, const void *bytes, size_t n) {
    const unsigned char *s = bytes;
    uint32_t c = s[0], low = 0x80, high = 0xBF;
    size_t more;
    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    *cp = PVL_UTF8_BAD;
    if (c < 0xC2 || c > 0xF4)
        return 1;
    more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
    /* Overlong forms, surrogates and what is above U+10FFFF are told by the second byte. */
    if (c == 0xE0)
        low = 0xA0;
    else if (c == 0xED)
        high = 0x9F;
    else if (c == 0xF0)
        low = 0x90;
    else if (c == 0xF4)
        high = 0x8F;
    c &= 0x3Fu >> more;
    for (size_t i = 1; i <= more; i++) {
        if (i == n) {
            *cp = PVL_UTF8_SHORT;
            return i;
        }
        if (s[i] < low || s[i] > high)
            return i;
        c = c << 6 | (s[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    *cp = c;
    return more + 1;
}

size_t pvl_utf8_encode(char out[4], uint32_t cp) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

/* The index of the first malformed byte, n when there is none. */
static size_t valid_prefix(const unsigned char *s, size_t n) {
    size_t at = 0;
    while (at < n) {
        uint32_t cp;
        size_t used;
        if (s[at] < 0x80) {
            at++;
            continue;
        }
        used = pvl_utf8_decode(&cp, s + at, n - at);
        if (cp > 0x10FFFF)
            return at;
        at += used;
    }
    return n;
}

bool pvl_utf8_valid(const void *s, size_t n) {
    return valid_prefix(s, n) == n;
}

pvl_status pvl_utf8_sanitize(pvl_text *out, const void *bytes, size_t n, pvl_utf8_replace how,
                             pvl_error *err) {
    const unsigned char *s = bytes;
    size_t start = out->bytes;
    pvl_status status = PVL_OK;
    while (n > 0 && status == PVL_OK) {
        size_t good = valid_prefix(s, n);
        status = pvl_text_append(out, s, good, err);
        s += good;
        n -= good;
        if (n > 0 && status == PVL_OK) {
            uint32_t cp;
            size_t bad = pvl_utf8_decode(&cp, s, n);
            if (how == PVL_REPLACE_BYTES)
                bad = 1;
            status = pvl_text_append(out, "\xEF\xBF\xBD", 3, err);
            s += bad;
            n -= bad;
        }
    }
    if (status != PVL_OK)
        out->bytes = start;
    return status;
}

unsigned pvl_unicode_class(uint32_t cp) {
    return pvl_unicode_record_of(cp).flags &
           (unsigned)(PVL_UNICODE_LETTER | PVL_UNICODE_NUMBER | PVL_UNICODE_SPACE);
}

bool pvl_unicode_is_python_space(uint32_t cp) {
    return (cp >= 0x1C && cp <= 0x1F) || (pvl_unicode_class(cp) & PVL_UNICODE_SPACE);
}

pvl_span pvl_unicode_strip(pvl_span text) {
    uint32_t cp;
    while (text.bytes > 0) {
        size_t used = pvl_utf8_decode(&cp, text.data, text.bytes);
        if (!pvl_unicode_is_python_space(cp))
            break;
        text.data += used;
        text.bytes -= used;
    }
    while (text.bytes > 0) {
        /* Back to the character's first byte, at most three continuation bytes away. */
        size_t used = 1;
        while (used < 4 && used < text.bytes &&
               ((unsigned char)text.data[text.bytes - used] & 0xC0) == 0x80)
            used++;
        if (pvl_utf8_decode(&cp, text.data + text.bytes - used, used) != used ||
            !pvl_unicode_is_python_space(cp))
            break;
        text.bytes -= used;
    }
    return text;
}
