#include <string.h>

#include "base/alloc.h"
#include "text/unicode.h"
#include "text/unicode_internal.h"

/* Hangul syllables, by arithmetic (Unicode 15.0, section 3.12). */
enum {
    S_BASE = 0xAC00,
    L_BASE = 0x1100,
    V_BASE = 0x1161,
    T_BASE = 0x11A7,
    L_COUNT = 19,
    V_COUNT = 21,
    T_COUNT = 28,
    N_COUNT = V_COUNT * T_COUNT,
    S_COUNT = L_COUNT * N_COUNT
};

/* A canonical decomposition never has more code points than this. */
enum { MAX_DECOMPOSITION = 4 };

/* While in work a code point carries its combining class in the upper byte. */
static uint32_t with_class(uint32_t cp) {
    return cp | (uint32_t)pvl_unicode_record_of(cp).ccc << 24;
}
static uint32_t code_of(uint32_t item) {
    return item & 0xFFFFFFu;
}
static uint32_t class_of(uint32_t item) {
    return item >> 24;
}

/* Writes the full canonical decomposition of cp, returns how many. */
static size_t decompose(uint32_t out[MAX_DECOMPOSITION], uint32_t cp) {
    size_t low = 0, high = PVL_DECOMPOSITIONS, n = 0;
    if (cp < 0xC0) {
        out[0] = cp;
        return 1;
    }
    if (cp >= S_BASE && cp < S_BASE + S_COUNT) {
        uint32_t s = cp - S_BASE;
        out[n++] = L_BASE + s / N_COUNT;
        out[n++] = V_BASE + s % N_COUNT / T_COUNT;
        if (s % T_COUNT)
            out[n++] = T_BASE + s % T_COUNT;
        return n;
    }
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (pvl_decomposition_of[mid] < cp)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == PVL_DECOMPOSITIONS || pvl_decomposition_of[low] != cp) {
        out[0] = cp;
        return 1;
    }
    /* The second of a pair never decomposes further; the first may, a few levels deep. */
    n = decompose(out, pvl_decomposition_first[low]);
    if (pvl_decomposition_second[low] && n < MAX_DECOMPOSITION)
        out[n++] = pvl_decomposition_second[low];
    return n;
}

/* The primary composite of a pair, 0 when there is none. */
static uint32_t compose(uint32_t first, uint32_t second) {
    size_t low = 0, high = PVL_COMPOSITIONS;
    if (first >= L_BASE && first < L_BASE + L_COUNT && second >= V_BASE &&
        second < V_BASE + V_COUNT)
        return S_BASE + ((first - L_BASE) * V_COUNT + (second - V_BASE)) * T_COUNT;
    if (first >= S_BASE && first < S_BASE + S_COUNT && (first - S_BASE) % T_COUNT == 0 &&
        second > T_BASE && second < T_BASE + T_COUNT)
        return first + (second - T_BASE);
    while (low < high) {
        size_t mid = (low + high) / 2, at = pvl_composition_order[mid];
        uint32_t a = pvl_decomposition_first[at], b = pvl_decomposition_second[at];
        if (a < first || (a == first && b < second))
            low = mid + 1;
        else
            high = mid;
    }
    if (low < PVL_COMPOSITIONS) {
        size_t at = pvl_composition_order[low];
        if (pvl_decomposition_first[at] == first && pvl_decomposition_second[at] == second)
            return pvl_decomposition_of[at];
    }
    return 0;
}

/* Sorts a run of marks by class, equals in their order. Long runs, which only hostile texts have,
 * by counting. */
static void sort_run(uint32_t *run, size_t n, uint32_t *scratch) {
    if (n <= 24) {
        for (size_t i = 1; i < n; i++) {
            uint32_t item = run[i];
            size_t j = i;
            for (; j > 0 && class_of(run[j - 1]) > class_of(item); j--)
                run[j] = run[j - 1];
            run[j] = item;
        }
        return;
    }
    size_t begin[257] = {0};
    for (size_t i = 0; i < n; i++)
        begin[class_of(run[i]) + 1]++;
    for (size_t c = 0; c < 256; c++)
        begin[c + 1] += begin[c];
    for (size_t i = 0; i < n; i++)
        scratch[begin[class_of(run[i])]++] = run[i];
    memcpy(run, scratch, n * sizeof *run);
}

/* Composes in place, returns the new length. */
static size_t compose_all(uint32_t *items, size_t n) {
    size_t out = 0, starter = 0;
    bool have_starter = false;
    uint32_t last = 0; /* class of the last item kept since the starter */
    for (size_t i = 0; i < n; i++) {
        uint32_t item = items[i], c = class_of(item);
        /* Blocked when something of the same or a higher class, or another starter, stands
         * between. */
        if (have_starter && (out == starter + 1 || last < c)) {
            uint32_t whole = compose(code_of(items[starter]), code_of(item));
            if (whole) {
                items[starter] = with_class(whole);
                continue;
            }
        }
        if (c == 0) {
            starter = out;
            have_starter = true;
        }
        last = c;
        items[out++] = item;
    }
    return out;
}

bool pvl_nfc_quick(const void *bytes, size_t n) {
    const unsigned char *s = bytes;
    uint32_t last = 0;
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        pvl_unicode_record r;
        if (s[at] < 0xCC) { /* below U+0300 nothing combines */
            at += s[at] < 0x80 ? 1 : 2;
            last = 0;
            continue;
        }
        at += pvl_utf8_decode(&cp, s + at, n - at);
        r = pvl_unicode_record_of(cp);
        if ((r.flags & PVL_UNICODE_NOT_NFC) || (r.ccc != 0 && r.ccc < last))
            return false;
        last = r.ccc;
    }
    return true;
}

pvl_status pvl_nfc(pvl_text *out, const void *bytes, size_t n, pvl_error *err) {
    const unsigned char *s = bytes;
    uint32_t parts[MAX_DECOMPOSITION], *items, cp;
    size_t count = 0, longest = 0, run = 0, at;
    pvl_status status;
    void *memory;
    if (pvl_nfc_quick(s, n))
        return pvl_text_append(out, s, n, err);
    for (at = 0; at < n;) {
        size_t k;
        at += pvl_utf8_decode(&cp, s + at, n - at);
        k = decompose(parts, cp);
        count += k; /* at most 2 per byte, so it fits: n is a size of something in memory */
        for (size_t i = 0; i < k; i++) {
            run = pvl_unicode_record_of(parts[i]).ccc ? run + 1 : 0;
            longest = run > longest ? run : longest;
        }
    }
    PVL_TRY(pvl_malloc(out->allocator, &memory, count + longest, sizeof *items,
                       "the normalisation of a text", err));
    items = memory;
    count = 0;
    for (at = 0; at < n;) {
        size_t k;
        at += pvl_utf8_decode(&cp, s + at, n - at);
        k = decompose(parts, cp);
        for (size_t i = 0; i < k; i++)
            items[count++] = with_class(parts[i]);
    }
    uint32_t *scratch = items + count;
    for (size_t i = 0; i < count;) {
        size_t end = i;
        while (end < count && class_of(items[end]) != 0)
            end++;
        if (end > i + 1)
            sort_run(items + i, end - i, scratch);
        i = end + 1;
    }
    count = compose_all(items, count);
    size_t need = 0;
    for (size_t i = 0; i < count; i++) {
        cp = code_of(items[i]);
        need += cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    }
    status = pvl_text_reserve(out, need, err);
    if (status == PVL_OK)
        for (size_t i = 0; i < count; i++) {
            char c[4];
            size_t k = pvl_utf8_encode(c, code_of(items[i]));
            memcpy(out->data + out->bytes, c, k);
            out->bytes += k;
        }
    pvl_free(out->allocator, memory);
    return status;
}
